"""Requests per URL of a web log.

Rule: the request of a line is the text between its first and second double quote (a backslash
escapes nothing; without a second quote, the text to the end of the line). It is split at runs of
spaces and tabs; its second part is the URL, unchanged. A line without a quote, or whose request has
fewer than two parts, is not counted: ``map.malformed_records`` grows by one.

Settings:

``field=N``
    Instead, the N-th part of the whole line split at runs of spaces and tabs; quotes mean nothing.
``top=K``
    Only the K most frequent URLs over the whole output, by count descending, then URL ascending;
    all of them are in the first part.

Theory of operation: Polars' CSV scanner finds separators at memory speed. With a double quote as
the *separator* and no quoting, the request is the second column of a line. Few requests differ, so
equal requests are counted first and the URL is cut out of the different ones only.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import minimr
from minimr.jobs.fields import scan_columns, single_blanks, to_binary, to_text
from minimr.jobs.options import Options

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

__all__ = ["job"]

MALFORMED = "map.malformed_records"

_SECOND_PART = r"^[ \t]*[^ \t]+[ \t]+([^ \t]+)"
_FIELD_MAX = 10_000  # the scanner's work grows with the columns it has to know


def job(settings: Mapping[str, str]) -> minimr.Job:
    """Build the job.

    Raises
    ------
    JobUsageError
        For an unknown setting or a value that is no positive number.
    """
    options = Options("url-count", settings, ("field", "top"))
    field_number = options.number("field", 1) if "field" in settings else None
    if field_number is not None and field_number > _FIELD_MAX:
        raise options.wrong("field", f"must be at most {_FIELD_MAX}")
    count_urls = CountUrls(field_number)
    top = options.number("top", 1) if "top" in settings else None
    if top is None:
        return minimr.Job(
            "url-count",
            map_batches=count_urls,
            combine=minimr.agg.sum,
            reduce=minimr.agg.sum,
            input_format="blocks",
        )
    return minimr.Job(
        "url-count",
        map_batches=count_urls,
        combine=minimr.agg.sum,
        partition=_first_partition,
        reduce_batches=KeepTop(top),
        input_format="blocks",
    )


@dataclass(frozen=True, slots=True)
class CountUrls:
    """Map function: blocks of whole lines to (URL, requests in this block)."""

    field_number: int | None  # from 1; None: the URL of the quoted request

    def __call__(self, batch: "pa.RecordBatch") -> "Iterator[pa.Table]":
        for block in batch.column("block"):
            counts, malformed_count = self.count(block.as_buffer().to_pybytes())
            if malformed_count:
                minimr.increment(MALFORMED, malformed_count)
            yield counts

    def count(self, block: bytes) -> "tuple[pa.Table, int]":
        """The different URLs of a block and their counts, and the number of malformed lines."""
        import polars as pl

        if self.field_number is not None:
            block = single_blanks(block)
        text, is_plain = to_text(block)
        if self.field_number is None:
            requests = _count_column(text, separator='"', column_index=1)
            urls = pl.col("part").str.extract(_SECOND_PART, 1)
            counts = requests.with_columns(part=urls).group_by("part").agg(pl.col("count").sum())
        else:
            counts = _count_column(text, separator=" ", column_index=self.field_number - 1)
        frame = counts.collect()
        is_url = pl.col("part").is_not_null()
        malformed_count = int(frame.filter(~is_url)["count"].sum())
        return _to_arrow(frame.filter(is_url), is_plain=is_plain), malformed_count


@dataclass(slots=True)
class KeepTop:
    """Reduce function: the K keys with the largest sums, when the partition ends."""

    limit: int
    best: "pa.Table | None" = field(default=None, init=False)

    def __call__(self, table: "pa.Table") -> None:
        import pyarrow as pa

        sums = table.group_by("key").aggregate([("value", "sum")])
        sums = sums.select(["key", "value_sum"]).rename_columns(["key", "value"])
        candidates = sums if self.best is None else pa.concat_tables([self.best, sums])
        order = [("value", "descending"), ("key", "ascending")]
        self.best = candidates.sort_by(order).slice(0, self.limit)

    def close(self) -> "pa.Table | None":
        best, self.best = self.best, None
        return best


def _first_partition(_key: bytes, _partition_count: int) -> int:
    """The most frequent over all are found where all counts come together."""
    return 0


def _count_column(text: bytes, *, separator: str, column_index: int) -> "pl.LazyFrame":
    """How often each value of a column occurs: columns ``part`` (null where a line has no such
    column, or an empty one) and ``count``."""
    import polars as pl

    lines = scan_columns(text, separator=separator, count=column_index + 1)
    counts: pl.LazyFrame = (
        lines.select(part=pl.last()).group_by("part").agg(pl.len().cast(pl.Int64).alias("count"))
    )
    return counts


def _to_arrow(frame: "pl.DataFrame", *, is_plain: bool) -> "pa.Table":
    import pyarrow as pa

    return pa.table(
        {"key": to_binary(frame["part"], is_plain=is_plain), "value": frame["count"].to_arrow()},
        schema=pa.schema([("key", pa.binary()), ("value", pa.int64())]),
    )
