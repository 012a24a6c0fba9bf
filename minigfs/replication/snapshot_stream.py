"""The bytes of a snapshot: records of several machines, packed into pieces of bounded size.

A machine freezes itself into records of whatever size suits it. Disk and network want pieces of at
most ``PIECE_BYTES_MAX``, wherever they cut. So the stream is::

    head | records of the first machine | END | records of the second | END | ...

each record with its length before it, and the head, a record too, names the machines in their
order. A stream that ends early, or goes on, is refused; wrong bytes are found by the checksums of
the file below.
"""

import struct
from collections.abc import Iterable, Iterator

import msgspec

from minigfs.errors import CorruptSnapshot

__all__ = ["PIECE_BYTES_MAX", "SnapshotHead", "pack", "unpack_head", "unpack_section"]

PIECE_BYTES_MAX = 256 * 1024
FORMAT_VERSION = 1

_LENGTH = struct.Struct("<I")
_END = 0xFFFF_FFFF  # in place of a record's length


class SnapshotHead(msgspec.Struct, frozen=True, array_like=True):
    format_version: int
    applied_index: int  # of the last entry whose effect is in the snapshot
    machines: tuple[str, ...]


_encoder = msgspec.msgpack.Encoder()
_head_decoder = msgspec.msgpack.Decoder(SnapshotHead)


def pack(applied_index: int, machines: Iterable[tuple[str, Iterator[bytes]]]) -> Iterator[bytes]:
    """The pieces; every record is drawn when its piece is, and not before."""
    sections = tuple(machines)
    head = SnapshotHead(FORMAT_VERSION, applied_index, tuple(name for name, _ in sections))
    return _cut(_frames(head, tuple(records for _, records in sections)))


def unpack_head(pieces: Iterator[bytes]) -> tuple[SnapshotHead, "StreamReader"]:
    """The head, and the reader of what follows, for ``unpack_section``."""
    stream = StreamReader(pieces)
    record = stream.read_record()
    try:
        head = None if record is None else _head_decoder.decode(record)
    except msgspec.DecodeError:
        head = None
    if head is None or head.format_version != FORMAT_VERSION:
        raise CorruptSnapshot(
            "the snapshot does not begin as one: another release wrote it? Start this master with "
            "that release, or with an empty directory as a new member"
        )
    return head, stream


def unpack_section(stream: "StreamReader") -> Iterator[bytes]:
    """The records of the next machine, to be drawn to their end before the next section."""
    while (record := stream.read_record()) is not None:
        yield record


class StreamReader:
    """Joins pieces, wherever they were cut, to records."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = b""
        self._at = 0

    def read_record(self) -> bytes | None:
        """The next record, or None at the end of a section."""
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        return None if length == _END else self._read(length)

    def check_at_end(self) -> None:
        if self._at < len(self._piece) or next(self._pieces, None) is not None:
            raise CorruptSnapshot(
                "the snapshot goes on behind its end: it was not written by this program; remove "
                "the file, and the group's other members will send theirs"
            )

    def _read(self, length: int) -> bytes:
        end = self._at + length
        if end <= len(self._piece):
            data = self._piece[self._at : end]
            self._at = end
            return data
        parts = [self._piece[self._at :]]
        missing = length - len(parts[0])
        while missing > 0:
            piece = next(self._pieces, None)
            if piece is None:
                raise CorruptSnapshot(
                    f"the snapshot ends {missing} bytes too early: remove the file, and the "
                    "group's other members will send theirs"
                )
            parts.append(piece[:missing])
            self._piece, self._at = piece, len(parts[-1])
            missing -= len(parts[-1])
        return b"".join(parts)


def _frames(head: SnapshotHead, sections: tuple[Iterator[bytes], ...]) -> Iterator[bytes]:
    yield from _frame(_encoder.encode(head))
    for records in sections:
        for record in records:
            yield from _frame(record)
        yield _LENGTH.pack(_END)


def _frame(record: bytes) -> tuple[bytes, bytes]:
    assert len(record) < _END
    return _LENGTH.pack(len(record)), record


def _cut(chunks: Iterator[bytes]) -> Iterator[bytes]:
    parts: list[bytes] = []
    size_bytes = 0
    for chunk in chunks:
        start = 0
        while size_bytes + len(chunk) - start >= PIECE_BYTES_MAX:
            end = start + PIECE_BYTES_MAX - size_bytes
            parts.append(chunk[start:end])
            yield b"".join(parts)
            parts, size_bytes, start = [], 0, end
        if start < len(chunk):
            parts.append(chunk[start:] if start else chunk)
            size_bytes += len(chunk) - start
    if parts:
        yield b"".join(parts)
