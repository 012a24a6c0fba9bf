"""The most frequent words of each host.

Documents are those of ``inverted-index``. The host of a document whose name is a URL is the URL's;
else it is the first part of the name's path. Output: the host, a tab, and its words as
``word:count``, by count descending, then by word, joined by one blank.

Settings:

``top=10``
    How many words of each host.
``tokens=ascii`` (default), ``unicode``, ``cjk``; ``docs=files`` (default), ``lines``
    As in ``inverted-index``.

How it works: this is a word count of (host, word). Its key is the two with a tab between them,
which neither has, so the keys of a host follow each other; the partition function looks at the
host alone. So the reducer sees all words of a host one after the other, and keeps the best.
"""

import heapq
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import minimr
from minimr.jobs.documents import DOCS, TOKENS, documents, words_by
from minimr.jobs.options import Options

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["job"]


def job(settings: Mapping[str, str]) -> minimr.Job:
    """Build the job; ``JobUsageError`` for an unknown setting or value."""
    options = Options("term-vector", settings, ("tokens", "docs", "top"))
    return minimr.Job(
        "term-vector",
        map_batches=WordsOfHosts(options.choice("tokens", TOKENS)),
        combine=minimr.agg.sum,
        partition=by_host,
        reduce_batches=KeepTop(options.number("top", 10)),
        input_format=options.choice("docs", DOCS),
    )


@dataclass(frozen=True, slots=True)
class WordsOfHosts:
    """Map function: documents to (host and word, occurrences)."""

    tokens: str

    def __call__(self, batch: "pa.RecordBatch") -> "Iterator[pa.Table]":
        import pyarrow as pa

        words_of = words_by(self.tokens)
        hosts: defaultdict[bytes, Counter[bytes]] = defaultdict(Counter)
        for name, text in documents(batch):
            hosts[host_of(name)].update(words_of(text))
        for host, counts in hosts.items():
            prefix = host + b"\t"
            keys = pa.array([prefix + word for word in counts], pa.large_binary())
            yield pa.table({"key": keys, "value": pa.array(list(counts.values()), pa.int64())})


def host_of(name: bytes) -> bytes:
    """The host of a URL, in lower case and without user and port; else the first path part."""
    if b"://" in name:
        try:
            host = urlsplit(name.decode("utf-8", "surrogateescape")).hostname
        except ValueError:
            host = None
        if host:
            return host.encode("utf-8", "surrogateescape")
    return name.lstrip(b"/").partition(b"/")[0]


def by_host(key: bytes, partition_count: int) -> int:
    """Partition function: all words of a host meet. Python's own hash differs between processes."""
    return zlib.crc32(key.rpartition(b"\t")[0]) % partition_count


@dataclass(slots=True)
class KeepTop:
    """Reduce function: the words of a host follow each other; when the next begins, it is done."""

    limit: int
    host: bytes | None = field(default=None, init=False)
    best: list[tuple[int, bytes]] = field(default_factory=list, init=False)

    def __call__(self, table: "pa.Table") -> "pa.Table":
        sums = table.group_by("key", use_threads=False).aggregate([("value", "sum")])
        done = []
        for key, count in zip(
            sums.column("key").to_pylist(), sums.column("value_sum").to_pylist(), strict=True
        ):
            host, _, word = key.rpartition(b"\t")
            if host != self.host:
                done += self.finish()
                self.host = host
            self.best.append((-count, word))
            if len(self.best) >= 2 * self.limit + 1000:
                self.best = heapq.nsmallest(self.limit, self.best)
        return _vectors(done)

    def close(self) -> "pa.Table":
        return _vectors(self.finish())

    def finish(self) -> list[tuple[bytes, bytes]]:
        """The host at hand with its vector, if there is one."""
        best, self.best = heapq.nsmallest(self.limit, self.best), []
        if self.host is None:
            return []
        return [(self.host, b" ".join(b"%s:%d" % (word, -count) for count, word in best))]


def _vectors(vectors: list[tuple[bytes, bytes]]) -> "pa.Table":
    import pyarrow as pa

    keys, values = zip(*vectors, strict=True) if vectors else ((), ())
    return pa.table(
        {"key": pa.array(keys, pa.large_binary()), "value": pa.array(values, pa.large_binary())}
    )
