"""The job's partition function as the shuffle wants it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from minimr.column_types import dictionary_of, to_objects
from minimr.errors import UnsupportedType
from minimr.messages import JobSpec, SplitPoint
from minimr.ordered_bytes import decode
from minimr.pairs import from_python
from minimr.partition import HashPartition, Partition, RangePartition
from minimr.plan.range_partition import place_of
from minimr.shuffle.keys import partitions_of
from minimr.shuffle.partitioners import (
    AssignedPartitions,
    Partitioner,
    RangePartitions,
    hashed_partitions,
)
from minimr.tasks.failures import UserCodeFailed, shown
from minimr.tasks.user_code import blame

__all__ = ["partitioner_of"]


def partitioner_of(partition: Partition | None, spec: JobSpec, split_index: int) -> Partitioner:
    """How the map task of a split partitions its output."""
    count = spec.partition_count
    match partition:
        case None:
            return hashed_partitions(count)
        case RangePartition():
            return _by_range(spec.split_points, count, place_of(split_index, len(spec.splits)))
        case HashPartition(by=by):
            return AssignedPartitions(lambda keys: _by_hash(by, keys, count), count)
        case _:
            return AssignedPartitions(lambda keys: _by_function(partition, keys, count), count)


def _by_range(points: Sequence[SplitPoint], count: int, place: int) -> RangePartitions:
    keys = [decode(point.key) for point in points]
    return RangePartitions(
        points=from_python(keys, keys).column(0),
        takes_equal=[point.share > place for point in points],
        partition_count=count,
    )


def _by_hash(by: Callable[[Any], Any], keys: pa.Array, count: int) -> NDArray[np.uint32]:
    distinct, codes = _distinct(keys)
    found = []
    for key in distinct:
        try:
            found.append(by(key))
        except (Exception, SystemExit) as error:  # whatever a user's function does
            blame("partition", error, record=f"key {shown(key)}")
    try:
        column = from_python(found, found).column(0)
    except UnsupportedType as error:
        raise UnsupportedType(
            f"HashPartition(by=...) gave keys to hash: {error.message}"
        ) from error
    partitions: NDArray[np.uint32] = partitions_of(column, count)[codes]
    return partitions


def _by_function(
    function: Callable[[Any, int], int], keys: pa.Array, count: int
) -> NDArray[np.uint32]:
    distinct, codes = _distinct(keys)
    found = [_partition_of(function, key, count) for key in distinct]
    partitions: NDArray[np.uint32] = np.array(found, np.uint32)[codes]
    return partitions


def _partition_of(function: Callable[[Any, int], int], key: Any, count: int) -> int:
    try:
        partition = function(key, count)
    except (Exception, SystemExit) as error:  # whatever a user's function does
        blame("partition", error, record=f"key {shown(key)}")
    if isinstance(partition, int) and 0 <= partition < count:
        return partition
    raise UserCodeFailed(
        f"partition returned {shown(partition)} for key {shown(key)}: "
        f"return an int from 0 to {count - 1}"
    )


def _distinct(keys: pa.Array) -> tuple[list[Any], NDArray[np.int32]]:
    """The different keys, and the number of each row's."""
    distinct, codes = dictionary_of(keys)
    return to_objects(distinct), codes
