"""Where the edges of a graph come from: each node with those that point to it.

Input lines are ``FROM<blanks>TO``; a CR at the end is removed, lines that start with ``#`` are
comments. What follows ``TO`` is ignored; a line without ``TO`` counts in ``map.malformed_records``.
Output: the node, a tab, and the different nodes with an edge to it, sorted by their bytes, joined
by one blank.

Settings:

``value=count``
    Instead of the nodes, how many they are.
"""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import minimr
from minimr.jobs.fields import first_fields
from minimr.jobs.options import Options

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["job"]


def job(settings: Mapping[str, str]) -> minimr.Job:
    """Build the job; ``JobUsageError`` for an unknown setting or value."""
    value = Options("reverse-edges", settings, ("value",)).choice("value", ("nodes", "count"))
    return minimr.Job(
        "reverse-edges",
        map_batches=reverse,
        combine=minimr.agg.collect_set,
        reduce=minimr.agg.collect_set if value == "nodes" else count_different,
        input_format="blocks",
    )


def reverse(batch: "pa.RecordBatch") -> "Iterator[pa.Table]":
    """Map function: blocks of lines to (TO, FROM)."""
    for block in batch.column("block"):
        edges = first_fields(_plain_lines(block.as_buffer().to_pybytes()), count=2)
        minimr.increment("map.malformed_records", edges.column("c1").null_count)
        yield edges.drop_null().rename_columns(["value", "key"])


def count_different(node: bytes, sources: Iterator[bytes]) -> Iterator[tuple[bytes, int]]:
    """Reduce function."""
    yield node, len(set(sources))


def _plain_lines(block: bytes) -> bytes:
    """The lines that are no comments, without a CR at their end."""
    if block.startswith(b"#") or b"\n#" in block:
        block = re.sub(rb"(?m)^#[^\n]*\n?", b"", block)
    return block.replace(b"\r\n", b"\n").removesuffix(b"\r")
