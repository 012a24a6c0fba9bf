"""Occurrences of each word.

Settings:

``tokens=ascii`` (default)
    Words are maximal runs of ``a-z0-9`` after lower-casing ASCII letters; every other byte parts
    words.
``tokens=unicode``
    Words are what Python's ``\\w+`` finds in the text (UTF-8, errors replaced) after ``str.lower``.
``tokens=cjk``
    As ``unicode``, but each CJK ideograph is a word of its own. Ideographs are the characters of
    the Unicode blocks CJK Unified Ideographs, their extensions A to I, and CJK Compatibility
    Ideographs with their supplement.

Theory of operation: the text is reduced to words with line feeds between them, as UTF-8. Most
words have at most 8 bytes, so they fit one 64-bit integer: word borders are found and words loaded
as integers by numpy, a cache-sized piece at a time, and equal integers are counted by Arrow. The
same with two integers for up to 16 bytes; longer words are counted as strings.

A line feed is neither part of a word nor of a character, and no rule of ``str.lower`` looks across
it, so blocks of whole lines give the same words as the whole file.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Literal, get_args

import minimr
from minimr.jobs.options import Options

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Octets = npt.NDArray[np.uint8]
    Integers = npt.NDArray[np.uint64]
    Positions = npt.NDArray[np.int64]

__all__ = ["job"]

Tokens = Literal["ascii", "unicode", "cjk"]

_LF = 10
_PIECE_BYTES = 256 << 10  # the arrays made for one piece stay in the processor's cache

_CODE_POINT_COUNT = 0x110000
_LETTER_COUNT = 0x40000  # the planes above the third have no letters and no numbers
_LOWERED_IN_CONTEXT = "\u0130\u03a3"  # its lower case is two characters; depends on the word

CJK_IDEOGRAPH_RANGES = (
    (0x3400, 0x4DBF),  # extension A
    (0x4E00, 0x9FFF),  # CJK Unified Ideographs
    (0xF900, 0xFAFF),  # CJK Compatibility Ideographs
    (0x20000, 0x2A6DF),  # extension B
    (0x2A700, 0x2EE5D),  # extensions C, D, E, F and I
    (0x2F800, 0x2FA1F),  # CJK Compatibility Ideographs Supplement
    (0x30000, 0x323AF),  # extensions G and H
)

_ASCII_WORD_BYTES = b"abcdefghijklmnopqrstuvwxyz0123456789"


def job(settings: Mapping[str, str]) -> minimr.Job:
    """Build the job.

    Raises
    ------
    JobUsageError
        For an unknown setting or another value of ``tokens``.
    """
    options = Options("word-count", settings, ("tokens",))
    tokens: Tokens = options.choice("tokens", get_args(Tokens))
    return minimr.Job(
        "word-count",
        map_batches=CountWords(tokens),
        combine=minimr.agg.sum,
        reduce=minimr.agg.sum,
        input_format="blocks",
    )


@dataclass(frozen=True, slots=True)
class CountWords:
    """Map function: blocks of whole lines to (word, occurrences in this block)."""

    tokens: Tokens

    def __call__(self, batch: "pa.RecordBatch") -> "Iterator[pa.Table]":
        for block in batch.column("block"):
            yield self.count(block.as_buffer().to_pybytes())

    def count(self, block: bytes) -> "pa.Table":
        """The different words of a block and their counts, in no particular order."""
        counts = WordCounts()
        if self.tokens == "ascii":
            words = block.translate(_ascii_table())
        else:
            words = b"".join(_unicode_words(block, counts, is_cjk=self.tokens == "cjk"))
        _count_words(words, counts)
        return counts.to_arrow()


@dataclass(slots=True)
class WordCounts:
    """Different words and their counts, collected from several kernels that share no word.

    Columns are made of their buffers: ``pa.array`` would import pandas wherever that is installed,
    which takes as long as a small job.
    """

    contents: "list[Octets]" = field(default_factory=list)
    lengths: "list[Positions]" = field(default_factory=list)
    counts: "list[Positions]" = field(default_factory=list)

    def add(self, content: "Octets", lengths: "Positions", counts: "Positions") -> None:
        """Words that stand one after the other in ``content``."""
        self.contents.append(content)
        self.lengths.append(lengths)
        self.counts.append(counts)

    def to_arrow(self) -> "pa.Table":
        import numpy as np
        import pyarrow as pa

        if not self.counts:
            return pa.schema([("key", pa.large_binary()), ("value", pa.int64())]).empty_table()
        offsets = np.cumsum(np.concatenate([np.zeros(1, np.int64), *self.lengths]))
        counts = np.concatenate(self.counts).astype(np.int64)
        words = [pa.py_buffer(offsets), pa.py_buffer(np.concatenate(self.contents))]
        keys = pa.Array.from_buffers(pa.large_binary(), len(counts), [None, *words])
        values = pa.Array.from_buffers(pa.int64(), len(counts), [None, pa.py_buffer(counts)])
        return pa.table({"key": keys, "value": values})


@cache
def _ascii_table(more_word_bytes: bytes = b"") -> bytes:
    """What each byte becomes: itself or its lower case in a word, else a line feed."""
    word_bytes = _ASCII_WORD_BYTES + more_word_bytes
    lower = bytes(range(256)).lower()
    return bytes(byte if byte in word_bytes else _LF for byte in lower)


def _count_words(text: bytes, counts: WordCounts) -> None:
    """Count the runs of bytes between line feeds; no byte is zero."""
    import numpy as np

    short: list[Integers] = []
    middle: list[Integers] = []
    long: list[tuple[Octets, Positions]] = []
    for start, end in _pieces(text):
        octets = np.full((end - start) // 8 * 8 + 24, _LF, np.uint8)
        octets[8 : 8 + end - start] = np.frombuffer(text, np.uint8, end - start, start)
        in_word = octets != _LF
        borders = np.flatnonzero(in_word[1:] != in_word[:-1]) + 1
        starts, lengths = borders[0::2], borders[1::2] - borders[0::2]
        first = _load(octets, starts, lengths)
        is_short = lengths <= 8
        short.append(first[is_short])
        if not is_short.all():
            is_middle = (lengths > 8) & (lengths <= 16)
            second = _load(octets, starts[is_middle] + 8, lengths[is_middle] - 8)
            middle.append(np.column_stack([first[is_middle], second]))
            long.append(_long_words(octets, starts, lengths))
    _add_integers(counts, short, width=1)
    _add_integers(counts, middle, width=2)
    _add_long(counts, long)


def _pieces(text: bytes) -> Iterator[tuple[int, int]]:
    """Ranges that together are the text, each ending with a line feed or the text."""
    start = 0
    while start < len(text):
        end = text.find(b"\n", start + _PIECE_BYTES) + 1 or len(text)
        yield start, end
        start = end


def _load(octets: "Octets", starts: "Positions", lengths: "Positions") -> "Integers":
    """The first eight bytes of each word as an integer, zero behind its end.

    Two aligned loads and shifts: numpy's own unaligned loads take twice as long.
    """
    import numpy as np

    aligned = octets.view("<u8")
    index, shift = starts >> 3, ((starts & 7) << 3).astype(np.uint64)
    low = aligned[index] >> shift
    high = (aligned[index + 1] << np.uint64(1)) << (np.uint64(63) - shift)
    masks = np.array([(1 << (8 * length)) - 1 for length in range(9)], np.uint64)
    loaded: Integers = (low | high) & masks[np.minimum(lengths, 8)]
    return loaded


def _long_words(
    octets: "Octets", starts: "Positions", lengths: "Positions"
) -> "tuple[Octets, Positions]":
    """The words of more than 16 bytes, one after the other, and their lengths."""
    import numpy as np

    is_long = lengths > 16
    sizes = lengths[is_long]
    before = np.cumsum(sizes) - sizes
    positions = np.repeat(starts[is_long] - before, sizes) + np.arange(sizes.sum())
    return octets[positions], sizes


def _add_integers(counts: WordCounts, pieces: "list[Integers]", *, width: int) -> None:
    """Words of up to ``8 * width`` bytes, each in that many integers."""
    import numpy as np
    import pyarrow as pa

    integers = np.concatenate([np.empty(0, np.uint64), *(piece.ravel() for piece in pieces)])
    integers = integers.astype("<u8", copy=False)
    if not integers.size:
        return
    row_type = pa.uint64() if width == 1 else pa.binary(8 * width)
    rows = pa.Array.from_buffers(row_type, integers.size // width, [None, pa.py_buffer(integers)])
    distinct, occurrences = _distinct(rows)
    octets = np.frombuffer(distinct.buffers()[1], "<u8", len(distinct) * width).view(np.uint8)
    octets = octets.reshape(-1, 8 * width)
    is_inside = octets != 0
    counts.add(octets[is_inside], is_inside.sum(axis=1), occurrences)


def _add_long(counts: WordCounts, pieces: "list[tuple[Octets, Positions]]") -> None:
    import numpy as np
    import pyarrow as pa

    lengths = [lengths for _, lengths in pieces]
    offsets = np.cumsum(np.concatenate([np.zeros(1, np.int64), *lengths]))
    if offsets.size == 1:
        return
    content = np.concatenate([content for content, _ in pieces])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(content)]
    words = pa.Array.from_buffers(pa.large_binary(), offsets.size - 1, buffers)
    distinct, occurrences = _distinct(words)
    offsets = np.frombuffer(distinct.buffers()[1], np.int64, len(distinct) + 1)
    content = np.frombuffer(distinct.buffers()[2], np.uint8, offsets[-1])
    counts.add(content, np.diff(offsets), occurrences)


def _distinct(words: "pa.Array") -> "tuple[pa.Array, Positions]":
    """The different ones, and how often each occurs."""
    import numpy as np
    import pyarrow.compute as pc

    found = pc.value_counts(words)
    occurrences = found.field(1)
    return found.field(0), np.frombuffer(occurrences.buffers()[1], np.int64, len(occurrences))


def _unicode_words(block: bytes, counts: WordCounts, *, is_cjk: bool) -> Iterator[bytes]:
    """The lower-cased words of a block with line feeds between them, as UTF-8. Ideographs that are
    words of their own go to ``counts``."""
    import numpy as np

    ideographs = []
    for start, end in _pieces(block):
        piece = block[start:end]
        if piece.isascii():
            yield piece.translate(_ascii_table(b"_"))
            continue
        text = piece.decode("utf-8", "replace")
        if any(character in text for character in _LOWERED_IN_CONTEXT):
            text = text.lower()
        letters = _letter_table()[np.frombuffer(text.encode("utf-32-le"), "<u4")]
        if is_cjk:
            is_ideograph = _ideograph_table()[letters]
            ideographs.append(letters[is_ideograph])
            letters[is_ideograph] = _LF
        yield letters.tobytes().decode("utf-32-le").encode()
    if ideographs:
        occurrences = np.bincount(np.concatenate(ideographs))
        found = np.flatnonzero(occurrences)
        words = [chr(code).encode() for code in found.tolist()]
        content = np.frombuffer(b"".join(words), np.uint8)
        counts.add(content, np.fromiter(map(len, words), np.int64), occurrences[found])


@cache
def _letter_table() -> "npt.NDArray[np.uint32]":
    """What each code point becomes: its lower case if that is in a word for Python, else LF."""
    import numpy as np

    letters = np.full(_CODE_POINT_COUNT, _LF, np.uint32)
    for code in range(_LETTER_COUNT):
        lower = chr(code).lower()
        if lower.isalnum() and len(lower) == 1:
            letters[code] = ord(lower)
    letters[ord("_")] = ord("_")
    return letters


@cache
def _ideograph_table() -> "npt.NDArray[np.bool_]":
    import numpy as np

    ideographs = np.zeros(_CODE_POINT_COUNT, np.bool_)
    for first, last in CJK_IDEOGRAPH_RANGES:
        ideographs[first : last + 1] = True
    return ideographs
