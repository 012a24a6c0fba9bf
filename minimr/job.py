"""What a user writes: the functions of a MapReduce job and how its data is read and written.

Two forms, freely mixed: *record* functions take one record, *batch* functions take and return
Arrow tables and are the fast path. ``minimr.agg`` has the usual aggregations, which run vectorised
in the combiner and in the reducer.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from minimr import inputs, outputs
from minimr.errors import JobUsageError
from minimr.partition import Partition

if TYPE_CHECKING:
    import pyarrow as pa

    from minimr.agg import Aggregation
    from minimr.inputs import InputFormat
    from minimr.outputs import OutputFormat

__all__ = [
    "Codec",
    "Job",
    "MapBatches",
    "MapRecord",
    "ReduceBatches",
    "ReduceRecords",
]

Key: TypeAlias = Any  # one of the types of `minimr.column_types`; one type in one job
Value: TypeAlias = Any  # the same

MapRecord: TypeAlias = Callable[[Any], Iterable[tuple[Key, Value]]]
ReduceRecords: TypeAlias = Callable[[Key, Iterator[Value]], Iterable[tuple[Key, Value]]]
MapBatches: TypeAlias = (
    "Callable[[pa.RecordBatch], pa.RecordBatch | pa.Table | Iterable[pa.RecordBatch | pa.Table]]"
)
ReduceBatches: TypeAlias = (
    "Callable[[pa.Table], pa.RecordBatch | pa.Table | Iterable[pa.RecordBatch | pa.Table] | None]"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """A type of keys or values of your own: ``encode`` makes one of the known types of it, and
    ``decode`` makes it again."""

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Job:
    """A MapReduce job. Its functions may be objects with ``setup`` and ``teardown``; see
    `minimr.tasks.functions`.

    Parameters
    ----------
    name : str
        Shown in lists and part of the job's id: letters, digits, ``-`` and ``_``.
    map : callable, optional
        ``map(record) -> iterable of (key, value)``. With ``input_format="lines"`` a record is one
        line as ``bytes``, without its LF.
    map_batches : callable, optional
        The same on a ``pyarrow.RecordBatch``; returns one or more tables with columns ``key`` and
        ``value``. Input columns: ``line: binary`` for ``"lines"``; ``block: large_binary`` for
        ``"blocks"``, each value a run of whole lines with their LFs (the file's last line may lack
        its LF), which saves the splitting for kernels that find lines themselves. Exactly one of
        ``map`` and ``map_batches``.
    combine : Aggregation or callable, optional
        Runs on map outputs before they are written (paper, section 4.3); must give the same result
        however often it is applied. ``combine(key, values) -> iterable of (key, value)``.
    reduce : Aggregation or callable, optional
        ``reduce(key, values) -> iterable of (key, value)``; values come in the order (split index,
        position), keys in increasing order.
    reduce_batches : callable, optional
        The same on a ``pyarrow.Table`` with columns ``key`` and ``value``, sorted by key, that
        always holds all values of its keys. If the object has a ``close()`` method it is called
        after the partition's last table and may return a last one. Without ``reduce`` and
        ``reduce_batches`` the job is map-only.
    sort_values : bool or callable
        Values of a key come in increasing order (True), or in the order of ``sort_values(value)``;
        equal ones in the order (split index, position). Not with ``combine``.
    key_codec, value_codec : Codec, optional
        How keys and values that record functions give and get travel from map to reduce, if their
        types are none of `minimr.column_types`. Keys sort as what they are encoded to.
    files : sequence of str
        URLs or paths of files that tasks read: see `minimr.broadcast`.
    partition : HashPartition, RangePartition or callable, optional
        Which part of the output a key goes to; see `minimr.partition`. A function is called as
        ``partition(key, partition_count) -> int``. Default: a stable hash of the key.
    input_format : str or description
        What a record is: see `minimr.inputs`.
    output_format : str or description
        What is written of a pair: see `minimr.outputs`. ``text`` is ``key<TAB>value<LF>``.
    """

    name: str
    map: MapRecord | None = None
    map_batches: "MapBatches | None" = None
    combine: "Aggregation | ReduceRecords | None" = None
    reduce: "Aggregation | ReduceRecords | None" = None
    reduce_batches: "ReduceBatches | None" = None
    partition: Partition | None = None
    sort_values: bool | Callable[[Value], Any] = False
    key_codec: "Codec | None" = None
    value_codec: "Codec | None" = None
    files: tuple[str, ...] = ()
    input_format: "str | InputFormat" = "lines"
    output_format: "str | OutputFormat" = "text"

    def __post_init__(self) -> None:
        if not self.name or not all(c.isascii() and (c.isalnum() or c in "-_") for c in self.name):
            raise JobUsageError(
                f"job name {self.name!r}: use letters, digits, '-' and '_', at least one"
            )
        if (self.map is None) == (self.map_batches is None):
            raise JobUsageError(f"job {self.name!r}: give exactly one of map= and map_batches=")
        if self.reduce is not None and self.reduce_batches is not None:
            raise JobUsageError(
                f"job {self.name!r}: give at most one of reduce= and reduce_batches="
            )
        if self.map is not None and self.input_format in ("blocks", inputs.Blocks()):
            raise JobUsageError(f"job {self.name!r}: input_format='blocks' needs map_batches=")
        inputs.chosen_format(self.input_format, {})
        outputs.chosen_format(self.output_format, {})
        if self.is_map_only and self.combine is not None:
            raise JobUsageError(f"job {self.name!r}: combine= without a reduce has nothing to do")
        if self.is_map_only and self.partition is not None:
            raise JobUsageError(f"job {self.name!r}: partition= without a reduce has nothing to do")
        self._check_order_and_codecs()
        if self.combine is not None:
            from minimr.agg import check_combination

            check_combination(self.combine, self.reduce)

    def _check_order_and_codecs(self) -> None:
        if self.sort_values and (self.is_map_only or self.combine is not None):
            why = "without a reduce has nothing to do" if self.is_map_only else "forbids combine="
            raise JobUsageError(f"job {self.name!r}: sort_values= {why}")
        codecs = self.key_codec is not None or self.value_codec is not None
        if codecs and (self.map is None or self.is_map_only or self.reduce_batches is not None):
            raise JobUsageError(
                f"job {self.name!r}: codecs are for jobs whose map and reduce take records"
            )

    @property
    def is_map_only(self) -> bool:
        return self.reduce is None and self.reduce_batches is None
