"""What stands in a file of a master or a chunkserver, record by record (``dump``); never writes.

Each function gives plain dictionaries, in the order of the file, and says where it stops: the last
one has ``what: end``, with ``damage`` if the file does not read back as it was written. A running
server's files may be read as well; what it appends meanwhile looks like a torn end.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from minigfs.chunkserver.checksum import SUM_BYTES, block_count, first_bad_block, table_slice
from minigfs.chunkserver.chunk_file import HEADER_BYTES_MAX, check_table, decode_header
from minigfs.config import CHECKSUM_BLOCK_BYTES
from minigfs.errors import CorruptChunk, CorruptLog, CorruptSnapshot
from minigfs.master.commands import decode_command
from minigfs.master.machine import FILE_SYSTEM_MACHINE
from minigfs.master.snapshot import decode_record as decode_state_record
from minigfs.ports import RealDiskFile
from minigfs.raft import Entry, EntryKind
from minigfs.replication.commands import (
    MEMBERS_MACHINE,
    SESSIONS_MACHINE,
    decode_logged_command,
    decode_member_command,
    decode_session_command,
)
from minigfs.replication.log_records import (
    HEAD,
    KEEP,
    REPLACE,
    SAVE,
    SEAL,
    decode_head,
    decode_keep,
    decode_replace,
    decode_save,
)
from minigfs.replication.snapshot_files import SnapshotReader
from minigfs.replication.snapshot_stream import unpack_head, unpack_section
from minigfs.replication.wal_format import FIRST_CHAIN, Fault, Record, Tail, judge_tail
from minigfs.replication.wal_format import decode_record as decode_log_record

__all__ = ["Row", "dump_chunk", "dump_log", "dump_snapshot"]

Row = dict[str, Any]

_RECORD_NAMES = {HEAD: "head", SAVE: "save", REPLACE: "replace", KEEP: "keep", SEAL: "seal"}
_COMMAND_DECODERS = {
    FILE_SYSTEM_MACHINE: decode_command,
    SESSIONS_MACHINE: decode_session_command,
    MEMBERS_MACHINE: decode_member_command,
}


def dump_chunk(path: Path) -> Iterator[Row]:
    """The header of a chunk file, then each block whose sum is wrong."""
    with _open(path) as file:
        try:
            header, layout = decode_header(file.read_at(0, HEADER_BYTES_MAX))
        except CorruptChunk as error:
            yield _end(str(error))
            return
        yield {
            "what": "header",
            **{name: getattr(header, name) for name in header.__slots__},
            "digest": f"{header.digest:016x}",
            "handle": f"{header.handle:016x}",
            "table_offset": layout.table_offset,
            "data_offset": layout.data_offset,
            "file_bytes": file.size_bytes(),
        }
        if not header.sealed:
            yield _end("")
            return
        table = file.read_at(layout.table_offset, block_count(header.length_bytes) * SUM_BYTES)
        try:
            check_table(header, table)
        except CorruptChunk as error:
            yield _end(str(error))
            return
        bad_count = 0
        for start in range(0, header.length_bytes, CHECKSUM_BLOCK_BYTES):
            length = min(CHECKSUM_BLOCK_BYTES, header.length_bytes - start)
            block = start // CHECKSUM_BLOCK_BYTES
            data = file.read_at(layout.data_offset + start, length)
            expected = table_slice(table, block, length)
            if first_bad_block(data, expected, handle=header.handle, first_block=block) is not None:
                bad_count += 1
                where = layout.data_offset + start
                yield {"what": "bad block", "block": block, "offset": where, "bytes": len(data)}
        yield _end(f"{bad_count} blocks have wrong sums" if bad_count else "")


def dump_log(path: Path) -> Iterator[Row]:
    """The records of one segment of a master's log, with the commands of its entries."""
    with _open(path) as file:
        content = file.read_at(0, file.size_bytes())
    at, chain, was_sealed = 0, FIRST_CHAIN, False
    while not was_sealed:
        decoded = decode_log_record(content, at, chain)
        if isinstance(decoded, Fault):
            break
        record, end, chain = decoded
        try:
            yield {"what": _RECORD_NAMES.get(record.type, "?"), "offset": at, **_log_record(record)}
        except (msgspec.MsgspecError, IndexError) as error:
            yield {"what": "unreadable", "offset": at, "why": str(error)}
        was_sealed = record.type == SEAL
        at = end
    tail = Tail.CLEAN if was_sealed else judge_tail(content[at:], at)
    if at == 0:
        tail = Tail.DAMAGED  # a head is durable before its file has a name
    row = _end(f"the record at offset {at} is damaged" if tail is Tail.DAMAGED else "")
    yield {**row, "offset": at, "sealed": was_sealed, "torn": tail is Tail.TORN}


def _log_record(record: Record) -> Row:
    match record.type:
        case t if t == HEAD:
            return dict(_plain(decode_head(record.payload)._asdict()))
        case t if t == SAVE:
            saved = decode_save(record.payload)
            return {
                "hard_state": _plain(saved.hard_state),
                "entries": [_entry(entry) for entry in saved.entries],
            }
        case t if t == REPLACE:
            return dict(_plain(decode_replace(record.payload)._asdict()))
        case t if t == KEEP:
            return {"snapshot": _plain(decode_keep(record.payload))}
    return {}


def _entry(entry: Entry) -> Row:
    row: Row = {"index": entry.index, "term": entry.term, "kind": entry.kind.value}
    if entry.configuration is not None:
        row["configuration"] = _plain(entry.configuration)
    if entry.kind is EntryKind.COMMAND:
        row |= _command(entry)
    return row


def _command(entry: Entry) -> Row:
    try:
        logged = decode_logged_command(entry.data, entry.index)
    except CorruptLog as error:
        return {"unreadable": str(error)}
    row: Row = {"machine": logged.machine, "origin": _plain(logged.origin)}
    decode = _COMMAND_DECODERS.get(logged.machine, msgspec.msgpack.decode)
    try:
        return row | {"command": _plain(decode(logged.command))}
    except msgspec.MsgspecError as error:
        return row | {"command": _plain(logged.command), "unreadable": str(error)}


def dump_snapshot(path: Path) -> Iterator[Row]:
    """The records of a master's snapshot, machine by machine."""
    with _open(path) as file:
        try:
            reader = SnapshotReader(file, str(path), path.name)
            yield {"what": "metadata", **_plain(reader.metadata)}
            head, stream = unpack_head(reader.pieces())
            yield {"what": "head", **_plain(head)}
            for machine in head.machines:
                for record in unpack_section(stream):
                    yield {"what": "record", "machine": machine, **_state_record(machine, record)}
            stream.check_at_end()
        except CorruptSnapshot as error:
            yield _end(error.message)
        else:
            yield _end("")


def _state_record(machine: str, record: bytes) -> Row:
    try:
        decode = decode_state_record if machine == FILE_SYSTEM_MACHINE else msgspec.msgpack.decode
        return {"record": _plain(decode(record))}
    except msgspec.MsgspecError as error:
        return {"record": _plain(record), "unreadable": str(error)}


def _open(path: Path) -> RealDiskFile:
    return RealDiskFile(str(path), os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def _end(damage: str) -> Row:
    return {"what": "end", "damage": damage} if damage else {"what": "end"}


def _plain(value: Any) -> Any:
    """Structs as dictionaries with the name of their type, bytes as text or hex."""
    if isinstance(value, msgspec.Struct):
        fields = {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
        return {"type": type(value).__name__.strip("_"), **fields}
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        return value.hex()
    return value
