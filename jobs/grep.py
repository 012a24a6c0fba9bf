"""The lines that match a pattern.

Lines come out unchanged, in the order of the input: in each part, and from part to part.

Settings:

``pattern=RE``
    A regular expression in RE2's syntax, on bytes; a line matches if any of it does.
``count=true``
    Instead of the lines: the pattern, a tab, and how many match.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import minimr
from minimr.errors import JobUsageError
from minimr.jobs.options import Options

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["job"]


def job(settings: Mapping[str, str]) -> minimr.Job:
    """Build the job; ``JobUsageError`` for an unknown setting or value, or no pattern."""
    options = Options("grep", settings, ("pattern", "count"))
    pattern = os.fsencode(settings.get("pattern", ""))
    if "pattern" not in settings:
        raise JobUsageError("grep: pattern is missing: say --set pattern=RE, in RE2's syntax")
    why_not = _why_not(pattern)
    if why_not:
        raise options.wrong("pattern", f"is no regular expression of RE2: {why_not}")
    if options.flag("count"):
        return minimr.Job(
            "grep",
            map_batches=CountMatches(pattern),
            combine=minimr.agg.sum,
            reduce=minimr.agg.sum,
        )
    return minimr.Job("grep", map_batches=Matches(pattern), output_format="lines")


@dataclass(frozen=True, slots=True)
class Matches:
    """Map function: lines to those that match. ``output_format="lines"`` writes values alone."""

    pattern: bytes

    def __call__(self, batch: "pa.RecordBatch") -> "pa.RecordBatch":
        import pyarrow as pa

        found = batch.filter(_matching(batch, self.pattern)).column("line")
        return pa.record_batch({"key": pa.repeat(b"", len(found)), "value": found})


@dataclass(frozen=True, slots=True)
class CountMatches:
    """Map function: lines to (pattern, how many match)."""

    pattern: bytes

    def __call__(self, batch: "pa.RecordBatch") -> "pa.RecordBatch":
        import pyarrow as pa

        count = _matching(batch, self.pattern).true_count
        return pa.record_batch({"key": [self.pattern], "value": [count]})


def _matching(batch: "pa.RecordBatch", pattern: bytes) -> "pa.BooleanArray":
    """Which lines match. On a column of bytes, Arrow's RE2 takes each byte for a character."""
    import pyarrow.compute as pc

    return pc.match_substring_regex(batch.column("line"), pattern)


def _why_not(pattern: bytes) -> str:
    """What is wrong with a pattern; "" if it is one."""
    import pyarrow as pa

    try:
        _matching(pa.record_batch({"line": pa.array([b""])}), pattern)
    except pa.ArrowInvalid as error:
        return str(error)
    return ""
