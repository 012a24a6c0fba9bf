"""Between numpy and Arrow without a detour.

``pa.array(numbers)``, ``column.to_numpy()`` and even ``pa.scalar`` import pandas wherever that is
installed, which costs a small job more than its own work: 0.2 s. Here buffers are shared, and
nothing is imported.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["binary_scalar", "from_numpy", "to_numpy"]

_DTYPES: dict[pa.DataType, np.dtype[Any]] = {
    pa.float64(): np.dtype(np.float64),
    pa.int32(): np.dtype(np.int32),
    pa.int64(): np.dtype(np.int64),
    pa.uint8(): np.dtype(np.uint8),
    pa.uint64(): np.dtype(np.uint64),
}


def binary_scalar(value: bytes) -> pa.Scalar:
    """``value`` as a `large_binary` scalar."""
    offsets = pa.py_buffer(np.array([0, len(value)], np.int64))
    array = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, pa.py_buffer(value)])
    return array[0]


def from_numpy(numbers: npt.NDArray[Any]) -> pa.Array:
    """An Arrow array of the same numbers (integers or floats, one dimension)."""
    contiguous = np.ascontiguousarray(numbers)
    return pa.Array.from_buffers(
        pa.from_numpy_dtype(contiguous.dtype), len(contiguous), [None, pa.py_buffer(contiguous)]
    )


def to_numpy(array: pa.Array) -> npt.NDArray[Any]:
    """The numbers (or truth values) of an Arrow array without nulls; read-only."""
    assert array.null_count == 0
    if pa.types.is_boolean(array.type):
        return to_numpy(array.cast(pa.uint8())).view(np.bool_)
    dtype = _DTYPES[array.type]
    _, data = array.buffers()
    if data is None:
        return np.empty(0, dtype)
    return np.frombuffer(data, dtype, count=len(array), offset=array.offset * dtype.itemsize)
