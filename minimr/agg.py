"""The usual aggregations, for ``combine=`` and ``reduce=``; they run vectorised in both places.

An aggregation is three kernels over groups of values (all values of one key, in order):

- ``partial`` turns values into partial results, on the map side if the aggregation is the job's
  combiner, else on the reduce side;
- ``merge`` turns partial results of one key into fewer, and may run any number of times;
- ``finish`` turns the partial results of one key into the value that is written.

So ``combine=agg.count, reduce=agg.count`` counts values: the combiner counts, the reducer adds the
counts up. For the same reason ``combine=agg.count, reduce=agg.sum`` is the same job. A reducer that
is an aggregation takes only what the job's combiner makes (`check_combination`); a reduce
*function* behind a combining aggregation gets partial results as its values.

Sums of ints are exact, or fail when the result needs more than 64 bits. Sums and means of floats
depend in their last digits on how the input was split: they are outside the promise of the same
bytes from every run.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from minimr.errors import JobUsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from minimr.agg_kernels import Kernel, Rows

__all__ = [
    "Aggregation",
    "check_combination",
    "collect_set",
    "count",
    "first",
    "keep",
    "max",
    "mean",
    "min",
    "sum",
]


@dataclass(frozen=True, slots=True)
class _Kernel:
    """A kernel by name: making a job imports neither numpy nor Arrow, running it does."""

    name: str

    def __call__(self, values: "pa.Array", starts: "Rows") -> "tuple[pa.Array, Rows | None]":
        from minimr import agg_kernels

        kernel: Kernel = getattr(agg_kernels, self.name)
        return kernel(values, starts)


@dataclass(frozen=True, slots=True, eq=False)
class Aggregation:
    """A named way to make one value out of all values of a key.

    Its kernels stand in `minimr.agg_kernels`.
    """

    name: str
    partial: _Kernel
    merge: _Kernel
    finish: _Kernel | None = None
    is_combiner: bool = True  # its partial results are ordinary values, so it may be ``combine=``
    takes: tuple[str, ...] = ()  # other combiners whose partial results this one understands

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Aggregation) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"minimr.agg.{self.name}"


def check_combination(combine: object, reduce: object) -> None:
    """Refuse aggregations that compute neither of what their names say.

    Raises `JobUsageError` for a reducing aggregation that misreads the combining one's results,
    and for a combiner whose partial results are no ordinary values behind any other reducer. A
    *function* cannot be judged: that it fits is its author's promise.
    """
    if not isinstance(combine, Aggregation) or combine == reduce:
        return
    if isinstance(reduce, Aggregation) and combine.name not in reduce.takes:
        raise JobUsageError(
            f"combine={combine!r} with reduce={reduce!r} computes neither: "
            "use the same aggregation for both, or leave combine= out"
        )
    if not combine.is_combiner:
        raise JobUsageError(f"combine={combine!r} needs reduce={combine!r}")


sum = Aggregation("sum", _Kernel("add"), _Kernel("add"), takes=("count",))  # noqa: A001 - named as users call it
"""The sum of all values: ints or floats."""

count = Aggregation("count", _Kernel("count"), _Kernel("add"))
"""The number of values, whatever they are."""

min = Aggregation("min", _Kernel("least"), _Kernel("least"))  # noqa: A001 - named as users call it
"""The least value."""

max = Aggregation("max", _Kernel("greatest"), _Kernel("greatest"))  # noqa: A001 - named as users call it
"""The greatest value."""

mean = Aggregation(
    "mean",
    _Kernel("sum_and_count"),
    _Kernel("add_sums_and_counts"),
    _Kernel("mean"),
    is_combiner=False,
)
"""The arithmetic mean of ints or floats, a float."""

first = Aggregation("first", _Kernel("first"), _Kernel("first"))
"""The first value in the order (split index, position)."""

collect_set = Aggregation("collect_set", _Kernel("distinct"), _Kernel("distinct"), _Kernel("join"))
"""The different values in increasing order, joined by one blank."""

keep = Aggregation("keep", _Kernel("every"), _Kernel("every"), is_combiner=False)
"""All values in their order, one record each: what a sort does with its records."""
