"""Columns from numpy and from Python objects, and back, without a detour.

``pa.array``, ``column.to_numpy()`` and even ``pa.scalar`` import pandas wherever that is installed,
which costs a small job more than its own work: 0.2 s. Here columns are made of their buffers, and
nothing is imported.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["binary_scalar", "from_bytes", "from_numpy", "from_texts", "to_numpy"]

_DTYPES: dict[pa.DataType, np.dtype[Any]] = {
    pa.float64(): np.dtype(np.float64),
    pa.int32(): np.dtype(np.int32),
    pa.int64(): np.dtype(np.int64),
    pa.uint8(): np.dtype(np.uint8),
    pa.uint64(): np.dtype(np.uint64),
}


def binary_scalar(value: bytes) -> pa.Scalar:
    """``value`` as a `large_binary` scalar."""
    return from_bytes([value])[0]


def from_bytes(objects: Sequence[bytes]) -> pa.Array:
    """A `large_binary` column of the objects."""
    return _variable_width(pa.large_binary(), objects)


def from_texts(objects: Sequence[str]) -> pa.Array:
    """A `large_string` column of the objects; `UnicodeEncodeError` for lone surrogates."""
    return _variable_width(pa.large_string(), [text.encode() for text in objects])


def _variable_width(arrow_type: pa.DataType, objects: Sequence[bytes]) -> pa.Array:
    offsets = np.zeros(len(objects) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, objects), np.int64, len(objects)), out=offsets[1:])
    data = pa.py_buffer(b"".join(objects))
    return pa.Array.from_buffers(arrow_type, len(objects), [None, pa.py_buffer(offsets), data])


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
