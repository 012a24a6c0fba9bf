"""What every reader gives: some records of a split at a time, in order, and where each of them is.

A reader never interprets more than it must, and holds no more than a block, whatever the files'
sizes. Records come as Python objects for ``map`` and as one Arrow batch for ``map_batches``; only
what is asked for is made.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import pyarrow as pa

from minimr.errors import UnreadableInput
from minimr.formats.storage import Storage
from minimr.messages import FileRange

__all__ = ["MalformedRecord", "OnMalformed", "Place", "Reader", "Records", "refuse", "shrunk"]

_SHOWN_CHARACTERS = 200

Place = tuple[str, int]  # URL, and the byte offset in the unpacked file; -1: not known


class Records(Protocol):
    """Some records, at least one; ``stored_bytes`` of the files, as stored, went into them."""

    @property
    def record_count(self) -> int: ...

    @property
    def stored_bytes(self) -> int: ...

    def objects(self) -> list[Any]:
        """One object a record, for ``map``."""

    def batch(self) -> pa.RecordBatch:
        """One row a record, for ``map_batches``."""

    def place_of(self, index: int) -> Place:
        """Where record ``index`` begins."""

    def extent(self) -> str:
        """Where all of them are, for people."""


class MalformedRecord(UnreadableInput):
    """One record of a file is not what its format says; ``record`` is as it stands there."""

    def __init__(self, why: str, *, url: str, offset: int, record: object) -> None:
        shown = repr(record)[:_SHOWN_CHARACTERS]
        super().__init__(f"{url} at byte {offset}: {why}: {shown}")
        self.why = why
        self.url = url
        self.offset = offset
        self.record = record
        self.shown = shown


OnMalformed = Callable[[MalformedRecord], None]


def refuse(error: MalformedRecord) -> None:
    """What a reader does with a malformed record, unless it is told otherwise."""
    raise error


def shrunk(wanted: FileRange, position: int) -> UnreadableInput:
    """The file ends at ``position``, before the end that it had."""
    return UnreadableInput(
        f"{wanted.url} ends at byte {position}, but had {wanted.file_bytes} when the job was "
        "planned: run the job again when nobody changes its input"
    )


class Reader(Protocol):
    """Reads one format."""

    def read(
        self,
        ranges: Sequence[FileRange],
        storage: Storage,
        *,
        block_bytes: int,
        on_malformed: OnMalformed = refuse,
    ) -> Iterator[Records]:
        """All records that begin in the ranges, in order. Close the iterator to stop early.

        ``on_malformed`` hears of each record that is not what the format says; if it returns, the
        record is left out.

        Raises
        ------
        UnreadableInput
            A file is damaged or shorter than when the job was planned; `MalformedRecord` if it is
            one record that cannot be read.
        OSError
            From the file system.
        """
