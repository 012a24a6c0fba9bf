"""From numpy to Arrow without a detour.

``pa.array(numbers)`` imports pandas wherever that is installed, which costs a small job more than
its own work: 0.2 s. The buffers are shared, not copied.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["from_numpy"]


def from_numpy(numbers: npt.NDArray[Any]) -> pa.Array:
    """An Arrow array of the same numbers (integers or floats, one dimension)."""
    contiguous = np.ascontiguousarray(numbers)
    return pa.Array.from_buffers(
        pa.from_numpy_dtype(contiguous.dtype), len(contiguous), [None, pa.py_buffer(contiguous)]
    )
