"""How an attempt's memory is shared out: one budget for everything it holds at the same time.

A map attempt holds a block of input with what its function makes of it, and buffered pairs (counted
with what sorting them takes). A reduce attempt holds fetched bytes, the rows of a merge step
(counted with all their copies), and what the reduce function and the output make of
them. The shares leave about a third for the allocators' waste and for what user code keeps.
"""

from dataclasses import dataclass

__all__ = ["MemoryPlan"]

_MIB = 1 << 20
BATCH_BLOCK_BYTES_MAX = 8 * _MIB  # a few milliseconds of a vectorised kernel
RECORD_BLOCK_BYTES_MAX = _MIB  # its lines become Python objects, several times as large
PAIR_COUNT_MAX = 64 << 10  # as Python objects at a time
_OBJECT_BYTES = 200  # of a pair, beside its content
FETCH_BYTES_MAX = 64 * _MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Shares of ``memory_bytes``, the bound of one executor (``--memory``)."""

    memory_bytes: int

    @property
    def batch_block_bytes(self) -> int:
        """Input that a batch function gets at a time; kernels hold it up to eight times."""
        return _between(64 << 10, self.memory_bytes // 64, BATCH_BLOCK_BYTES_MAX)

    @property
    def record_block_bytes(self) -> int:
        return _between(64 << 10, self.memory_bytes // 128, RECORD_BLOCK_BYTES_MAX)

    def pair_count(self, pairs_bytes: int, pair_count: int) -> int:
        """How many pairs like those measured may be Python objects at a time."""
        each_bytes = _OBJECT_BYTES + pairs_bytes // max(pair_count, 1)
        return _between(1, self.memory_bytes // 32 // each_bytes, PAIR_COUNT_MAX)

    @property
    def output_bytes(self) -> int:
        """Pairs that become output at a time; encoders hold them up to five times."""
        return _between(64 << 10, self.memory_bytes // 64, BATCH_BLOCK_BYTES_MAX)

    @property
    def buffer_bytes(self) -> int:
        """What a map attempt may take to gather its pairs, sort and merge them."""
        return self.memory_bytes // 2

    @property
    def fetch_bytes(self) -> int:
        """Map outputs that a reduce attempt holds as they came; the rest waits on disk."""
        return min(self.memory_bytes // 16, FETCH_BYTES_MAX)

    @property
    def merge_bytes(self) -> int:
        """All that a merge holds, its copies counted."""
        return self.memory_bytes // 4


def _between(least: int, wanted: int, most: int) -> int:
    return max(least, min(wanted, most))
