"""Documents and their words, for the jobs that index them.

A document is a file; its name is the path below the input folder, a blank in it written ``%20``.
With ``docs=lines`` it is a line ``docid<TAB>text``; a line without a tab has no text and counts in
``map.malformed_records``.

Words are those of `minimr.jobs.word_count`, here in their order: ``tokens=ascii`` (default),
``unicode`` or ``cjk``.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING

import minimr
from minimr.jobs.word_count import CJK_IDEOGRAPH_RANGES

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["DOCS", "TOKENS", "Words", "documents", "words_by"]

TOKENS = ("ascii", "unicode", "cjk")
DOCS = ("files", "lines")

Words = Callable[[bytes], list[bytes]]

# What each byte becomes: a letter its lower case, a digit itself, all others a blank.
_ASCII = bytes(
    byte if byte in b"abcdefghijklmnopqrstuvwxyz0123456789" else ord(" ")
    for byte in bytes(range(256)).lower()
)


def documents(batch: "pa.RecordBatch") -> Iterator[tuple[bytes, bytes]]:
    """Name and text of each document in a batch of ``files`` or of ``lines``."""
    if batch.schema.names == ["name", "content"]:
        for name, content in zip(*batch.columns, strict=True):
            yield name.as_py().replace(" ", "%20").encode(), content.as_py()
        return
    for line in batch.column("line").to_pylist():
        name, tab, text = line.partition(b"\t")
        if tab:
            yield name, text
        else:
            minimr.increment("map.malformed_records")


def words_by(tokens: str) -> Words:
    """The function that finds the words of a text, all of them in their order."""
    return {"ascii": _ascii_words, "unicode": _unicode_words, "cjk": _cjk_words}[tokens]


def _ascii_words(text: bytes) -> list[bytes]:
    return text.translate(_ASCII).split()


def _unicode_words(text: bytes) -> list[bytes]:
    words: list[str] = _unicode_word().findall(text.decode("utf-8", "replace").lower())
    return [word.encode() for word in words]


def _cjk_words(text: bytes) -> list[bytes]:
    words: list[str] = _cjk_word().findall(text.decode("utf-8", "replace").lower())
    return [word.encode() for word in words]


@cache
def _unicode_word() -> re.Pattern[str]:
    return re.compile(r"\w+")


@cache
def _cjk_word() -> re.Pattern[str]:
    ideographs = "".join(f"{chr(first)}-{chr(last)}" for first, last in CJK_IDEOGRAPH_RANGES)
    return re.compile(rf"(?=\w)[{ideographs}]|[^\W{ideographs}]+")
