"""Keys in order of (partition, key), each kind of partition in the way that is cheapest for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from minimr.column_types import type_name
from minimr.errors import UnsupportedType
from minimr.shuffle.keys import (
    bound_of,
    partition_bounds,
    partition_order,
    partitions_of,
    rows_below,
    sort_order,
    words_of,
)

__all__ = ["AssignedPartitions", "Partitioner", "RangePartitions", "hashed_partitions"]

Rows: TypeAlias = NDArray[np.int64]
Assign: TypeAlias = Callable[[pa.Array], NDArray[np.uint32]]
"""The partition of each key."""


class Partitioner(Protocol):
    @property
    def partition_count(self) -> int: ...

    def arrange(self, columns: Sequence[pa.Array]) -> tuple[Rows, Rows]:
        """Row numbers sorted by (partition, columns), stable; and where in them each partition
        begins and the last ends (``partition_count + 1`` numbers). The first column has the keys,
        which alone decide about partitions."""


@dataclass(frozen=True, slots=True)
class AssignedPartitions:
    """Each key is told its partition."""

    assign: Assign
    partition_count: int

    def arrange(self, columns: Sequence[pa.Array]) -> tuple[Rows, Rows]:
        partitions = self.assign(columns[0])
        order = partition_order(columns, partitions, self.partition_count)
        return order, partition_bounds(partitions[order], self.partition_count)


def hashed_partitions(partition_count: int) -> AssignedPartitions:
    """The default: by stable hash."""
    return AssignedPartitions(lambda keys: partitions_of(keys, partition_count), partition_count)


@dataclass(frozen=True, slots=True, kw_only=True)
class RangePartitions:
    """Ranges of keys: one sort by key sorts by partition as well.

    ``points`` are increasing keys; a key equal to point i is before it if ``takes_equal[i]``.
    """

    points: pa.Array
    takes_equal: Sequence[bool]
    partition_count: int

    def arrange(self, columns: Sequence[pa.Array]) -> tuple[Rows, Rows]:
        keys = columns[0]
        if len(self.points) and self.points.type != keys.type:
            raise UnsupportedType(
                f"keys of one job must have one type; found {type_name(keys.type)} here, and "
                f"{type_name(self.points.type)} in the sample that the ranges were made from"
            )
        words = words_of(keys)
        order = sort_order(columns, words)
        bounds = np.full(self.partition_count + 1, len(keys), np.int64)
        bounds[0] = 0
        words = words[order]
        for index, with_equal in enumerate(self.takes_equal):
            point = bound_of([self.points], index)
            bounds[index + 1] = rows_below([keys], words, point, with_equal=with_equal, order=order)
        return order, bounds
