"""Which reduce partition a key goes to (MapReduce section 4.1), for ``Job(partition=...)``.

``None`` (the default)
    A stable hash of the key: the same on every machine and in every release.
``HashPartition(by=host_of)``
    The same hash of something made from the key, so that keys that share it meet in one part.
``RangePartition()``
    Ranges of keys: the parts of the output, one after the other, are in order of key.
``function(key, partition_count) -> int``
    Whatever you say.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = ["HashPartition", "Partition", "RangePartition"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HashPartition:
    """Keys for which ``by(key)`` is equal share a partition.

    ``by`` returns a value of a type that keys can have; the paper's example is the host of a URL.
    """

    by: Callable[[Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RangePartition:
    """Partition p has only keys less than those of partition p + 1.

    Where the ranges begin is found by sampling: before the job starts, its map function is run
    here, on records at a bounded number of positions of the input. The points are part of the
    job's plan, so all attempts agree on them. A key so frequent that it would fill a partition gets
    one of its own, as far as there are enough.

    Parameters
    ----------
    split_keys : bool
        Cut the values of a very frequent key over several partitions, which follow each other in
        the order of values (split index, position). Then ``reduce`` is called for that key in each
        of them: right for sorting, wrong for counting.
    """

    split_keys: bool = False


Partition: TypeAlias = HashPartition | RangePartition | Callable[[Any, int], int]
