"""The documents that each word occurs in.

A document is a file of the input folder. Output: the word, a tab, and its different documents,
sorted by their bytes, joined by one blank.

Settings:

``tokens=ascii`` (default), ``unicode``, ``cjk``
    What a word is: see ``word-count``.
``docs=files`` (default), ``lines``
    A document is a file, its name the path below the input folder with ``%20`` for a blank; or it
    is a line ``docid<TAB>text``.
``counts=true``
    ``document:count``: how often the word occurs in it.
``positions=true``
    ``document:p1,p2,...``: at which words of the document, from 0.

How it works: map gives (word, document) once for each word of a document; an aggregation of minimr
collects the different ones. With counts or positions the value carries them behind its last tab.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import minimr
from minimr.jobs.documents import DOCS, TOKENS, documents, words_by
from minimr.jobs.options import Options

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["job"]


def job(settings: Mapping[str, str]) -> minimr.Job:
    """Build the job; ``JobUsageError`` for an unknown setting or value."""
    options = Options("inverted-index", settings, ("tokens", "docs", "counts", "positions"))
    tokens = options.choice("tokens", TOKENS)
    input_format = options.choice("docs", DOCS)
    counts, positions = options.flag("counts"), options.flag("positions")
    if counts and positions:
        raise options.wrong("positions", "and counts=true: choose one, positions tell the count")
    if not (counts or positions):
        return minimr.Job(
            "inverted-index",
            map_batches=DocumentsOfWords(tokens),
            combine=minimr.agg.collect_set,
            reduce=minimr.agg.collect_set,
            input_format=input_format,
        )
    return minimr.Job(
        "inverted-index",
        map_batches=CountsOfWords(tokens) if counts else PositionsOfWords(tokens),
        reduce=add_counts if counts else join_positions,
        input_format=input_format,
    )


@dataclass(frozen=True, slots=True)
class DocumentsOfWords:
    """Map function: documents to (word, document)."""

    tokens: str

    def __call__(self, batch: "pa.RecordBatch") -> "pa.Table":
        words_of = words_by(self.tokens)
        found: list[bytes] = []
        names, counts = [], []
        for name, text in documents(batch):
            different = set(words_of(text))
            found += different
            names.append(name)
            counts.append(len(different))
        return _pairs(found, names, counts)


@dataclass(frozen=True, slots=True)
class CountsOfWords:
    """Map function: documents to (word, document and count)."""

    tokens: str

    def __call__(self, batch: "pa.RecordBatch") -> "pa.Table":
        words_of = words_by(self.tokens)
        found: list[bytes] = []
        values: list[bytes] = []
        for name, text in documents(batch):
            counts = Counter(words_of(text))
            found += counts
            values += [b"%s\t%d" % (name, count) for count in counts.values()]
        return _pairs(found, values)


@dataclass(frozen=True, slots=True)
class PositionsOfWords:
    """Map function: documents to (word, document and positions)."""

    tokens: str

    def __call__(self, batch: "pa.RecordBatch") -> "pa.Table":
        words_of = words_by(self.tokens)
        found: list[bytes] = []
        values: list[bytes] = []
        for name, text in documents(batch):
            positions = defaultdict(list)
            for position, word in enumerate(words_of(text)):
                positions[word].append(b"%d" % position)
            found += positions
            values += [b"%s\t%s" % (name, b",".join(each)) for each in positions.values()]
        return _pairs(found, values)


def add_counts(word: bytes, values: Iterator[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Reduce function: a docid may stand on several lines, so its counts are added up."""
    counts: Counter[bytes] = Counter()
    for value in values:
        name, _, count = value.rpartition(b"\t")
        counts[name] += int(count)
    yield word, b" ".join(b"%s:%d" % (name, counts[name]) for name in sorted(counts))


def join_positions(word: bytes, values: Iterator[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Reduce function: values come in the order of the input, whatever ran where."""
    positions = defaultdict(list)
    for value in values:
        name, _, found = value.rpartition(b"\t")
        positions[name].append(found)
    yield (
        word,
        b" ".join(b"%s:%s" % (name, b",".join(positions[name])) for name in sorted(positions)),
    )


def _pairs(keys: list[bytes], values: list[bytes], repeats: list[int] | None = None) -> "pa.Table":
    """Columns of them; each value ``repeats`` times, if that is given."""
    import numpy as np
    import pyarrow as pa

    column = pa.array(values, pa.large_binary())
    if repeats is not None:
        column = column.take(pa.array(np.repeat(np.arange(len(values)), repeats)))
    return pa.table({"key": pa.array(keys, pa.large_binary()), "value": column})
