"""What a member writes into its log: five kinds of record, and the bytes of their payloads.

======== =========================================================================================
HEAD     first in each segment: whose log, which segment, the chain it goes on from, and a
         ``Checkpoint``, all that the segments before it said except their entries
SAVE     the hard state or none, and entries: each replaces what was stored at or above its index
REPLACE  a snapshot from the leader takes the place of the whole log before it
KEEP     a snapshot of the member's own machine is durable; the log stays
SEAL     last in each segment but the last: it goes on in the next one
======== =========================================================================================

Payloads are msgpack arrays, positional, so that the names of our classes are not on disk.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import msgspec

from minigfs.raft import (
    Configuration,
    Entry,
    EntryKind,
    HardState,
    LogPosition,
    NodeId,
    Persist,
    SnapshotMetadata,
)
from minigfs.replication.wal_format import Record

__all__ = [
    "HEAD",
    "KEEP",
    "REPLACE",
    "SAVE",
    "SEAL",
    "Checkpoint",
    "Head",
    "Replacement",
    "Saved",
    "decode_head",
    "decode_keep",
    "decode_metadata",
    "decode_replace",
    "decode_save",
    "encode_head",
    "encode_keep",
    "encode_metadata",
    "encode_persist",
]

HEAD, SAVE, REPLACE, KEEP, SEAL = 1, 2, 3, 4, 5

SAVE_BYTES_MAX = 4 * 1024 * 1024  # entries of one record, unless one entry alone is larger

_KIND_CODES = {EntryKind.COMMAND: 0, EntryKind.NOOP: 1, EntryKind.CONFIGURATION: 2}
_KINDS = (EntryKind.COMMAND, EntryKind.NOOP, EntryKind.CONFIGURATION)

_HardState: TypeAlias = tuple[int, str | None]
_Names: TypeAlias = tuple[str, ...]
_Configuration: TypeAlias = tuple[_Names, _Names, _Names]
_Metadata: TypeAlias = tuple[int, int, _Configuration]
_Entry: TypeAlias = tuple[int, int, bytes, _Configuration | None]  # term, kind, data
_Head: TypeAlias = tuple[str, int, int, int, _HardState, _Metadata, tuple[int, int]]

_encoder = msgspec.msgpack.Encoder()
_save_decoder = msgspec.msgpack.Decoder(tuple[_HardState | None, int, tuple[_Entry, ...]])
_replace_decoder = msgspec.msgpack.Decoder(tuple[_HardState | None, _Metadata])
_metadata_decoder = msgspec.msgpack.Decoder(_Metadata)
_head_decoder = msgspec.msgpack.Decoder(_Head)


class Checkpoint(NamedTuple):
    """What a segment must know when those before it are gone."""

    hard_state: HardState
    snapshot: SnapshotMetadata
    """The newest recorded; the founding state (index 0) if there is none."""
    before: LogPosition
    """Of the last entry; the segment's first one follows it, or overrides it or some before it."""


class Head(NamedTuple):
    member_id: NodeId
    sequence: int
    chain_before: int
    """Chain of the last record of the segment before."""
    batch_bytes: int
    """Bytes of records that were synced together with the head, before the file had its name."""
    checkpoint: Checkpoint


class Saved(NamedTuple):
    hard_state: HardState | None
    entries: list[Entry]


class Replacement(NamedTuple):
    hard_state: HardState | None
    snapshot: SnapshotMetadata


def encode_persist(persist: Persist) -> list[Record]:
    """The records of one write, in the order in which they must take effect."""
    hard_state, entries = persist.hard_state, persist.entries
    records = []
    if persist.snapshot is not None:
        metadata = _metadata_out(persist.snapshot.metadata)
        payload = _encoder.encode((_hard_state_out(hard_state), metadata))
        records.append(Record(REPLACE, 0, payload))
        hard_state = None
    for part in _parts(entries):
        records.append(_encode_save(hard_state, part))
        hard_state = None
    if hard_state is not None:
        records.append(_encode_save(hard_state, ()))
    return records


def _parts(entries: Sequence[Entry]) -> list[Sequence[Entry]]:
    """The entries in runs of at most ``SAVE_BYTES_MAX``, or of one entry."""
    parts: list[Sequence[Entry]] = []
    start, total_bytes = 0, 0
    for at, entry in enumerate(entries):
        total_bytes += entry.size_bytes
        if total_bytes > SAVE_BYTES_MAX and at > start:
            parts.append(entries[start:at])
            start, total_bytes = at, entry.size_bytes
    if start < len(entries):
        parts.append(entries[start:] if start else entries)
    return parts


def _encode_save(hard_state: HardState | None, entries: Sequence[Entry]) -> Record:
    first = entries[0].index if entries else 0
    stored = [
        (
            entry.term,
            _KIND_CODES[entry.kind],
            entry.data,
            None if entry.configuration is None else _configuration_out(entry.configuration),
        )
        for entry in entries
    ]
    last = first + len(stored) - 1 if stored else 0
    return Record(SAVE, last, _encoder.encode((_hard_state_out(hard_state), first, stored)))


def decode_save(payload: bytes) -> Saved:
    hard_state, first, stored = _save_decoder.decode(payload)
    entries = [
        Entry(
            index=index,
            term=term,
            kind=_KINDS[kind],
            data=data,
            configuration=None if configuration is None else _configuration_in(configuration),
        )
        for index, (term, kind, data, configuration) in enumerate(stored, first)
    ]
    return Saved(_hard_state_in(hard_state), entries)


def decode_replace(payload: bytes) -> Replacement:
    hard_state, metadata = _replace_decoder.decode(payload)
    return Replacement(_hard_state_in(hard_state), _metadata_in(metadata))


def encode_keep(metadata: SnapshotMetadata) -> Record:
    return Record(KEEP, 0, encode_metadata(metadata))


def decode_keep(payload: bytes) -> SnapshotMetadata:
    return decode_metadata(payload)


def encode_metadata(metadata: SnapshotMetadata) -> bytes:
    return _encoder.encode(_metadata_out(metadata))


def decode_metadata(payload: bytes) -> SnapshotMetadata:
    return _metadata_in(_metadata_decoder.decode(payload))


def encode_head(head: Head) -> Record:
    hard_state, snapshot, before = head.checkpoint
    payload = _encoder.encode(
        (
            head.member_id,
            head.sequence,
            head.chain_before,
            head.batch_bytes,
            (hard_state.current_term, hard_state.voted_for),
            _metadata_out(snapshot),
            (before.index, before.term),
        )
    )
    return Record(HEAD, 0, payload)


def decode_head(payload: bytes) -> Head:
    member_id, sequence, chain, batch_bytes, stored, snapshot, before = _head_decoder.decode(
        payload
    )
    hard_state = HardState(current_term=stored[0], voted_for=_name_in(stored[1]))
    checkpoint = Checkpoint(hard_state, _metadata_in(snapshot), LogPosition(*before))
    return Head(NodeId(member_id), sequence, chain, batch_bytes, checkpoint)


def _name_in(name: str | None) -> NodeId | None:
    return None if name is None else NodeId(name)


def _hard_state_out(hard_state: HardState | None) -> _HardState | None:
    return None if hard_state is None else (hard_state.current_term, hard_state.voted_for)


def _hard_state_in(stored: _HardState | None) -> HardState | None:
    if stored is None:
        return None
    return HardState(current_term=stored[0], voted_for=_name_in(stored[1]))


def _configuration_out(configuration: Configuration) -> _Configuration:
    return configuration.voters, configuration.learners, configuration.retired


def _configuration_in(stored: _Configuration) -> Configuration:
    voters, learners, retired = (tuple(map(NodeId, names)) for names in stored)
    return Configuration(voters=voters, learners=learners, retired=retired)


def _metadata_out(metadata: SnapshotMetadata) -> _Metadata:
    return (
        metadata.last_included_index,
        metadata.last_included_term,
        _configuration_out(metadata.configuration),
    )


def _metadata_in(stored: _Metadata) -> SnapshotMetadata:
    index, term, configuration = stored
    return SnapshotMetadata(
        last_included_index=index,
        last_included_term=term,
        configuration=_configuration_in(configuration),
    )
