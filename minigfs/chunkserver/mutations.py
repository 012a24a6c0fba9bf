"""The order of mutations of one open chunk, on its primary and on the others (GFS section 3.1).

::

    primary:  records that wait --plan--> batch (serial, offset)  --> apply here, and down the chain
    others:   batch --check--> the next serial, at the end of what is here --> apply

A batch is the unit of order and of durability: its records follow each other at the end of the
chunk. Whoever missed one refuses the next, so the states of all members are prefixes of each other.
A frozen replica takes nothing any more, ever.

Every state remembers the last record of each appender, so a record that is sent again is found, not
appended again; an appender sends a record only when it knows what became of the one before. Pure;
the caller's lock guards it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from minigfs.chunkserver.append_messages import BatchRecord
from minigfs.errors import WriterFenced

__all__ = ["APPENDERS_MAX", "FULL", "STALE", "Batch", "LastRecord", "Mutations"]

APPENDERS_MAX = 2_000  # what a slot of the chunk file has room for; then the chunk counts as full
FULL = -1  # no room: it will never be in this chunk
STALE = -2  # its appender has gone on since: nobody waits for it


@dataclass(frozen=True, slots=True)
class LastRecord:
    """The last record of one appender in a chunk."""

    sequence: int
    offset_bytes: int
    length_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    serial: int
    offset_bytes: int
    records: tuple[BatchRecord, ...]

    @property
    def end_bytes(self) -> int:
        return self.offset_bytes + sum(record.length_bytes for record in self.records)


@dataclass(slots=True, kw_only=True)
class Mutations:
    """What a replica has applied; a fresh one has applied nothing."""

    chunk_bytes: int
    serial: int = 0
    length_bytes: int = 0
    committed_bytes: int = 0  # every member has these, as far as this one knows
    last_records: dict[int, LastRecord] = field(default_factory=dict)
    is_frozen: bool = False

    def plan(self, waiting: Sequence[BatchRecord]) -> tuple[Batch, list[int]]:
        """The next batch, and for each record its offset, ``FULL`` or ``STALE``.

        A record that was appended before keeps its offset and is in no batch; so may all be.
        """
        self.check_not_frozen()
        end = self.length_bytes
        records: list[BatchRecord] = []
        planned: dict[int, LastRecord] = {}
        offsets: list[int] = []
        for record in waiting:
            known = planned.get(record.appender_id) or self.last_records.get(record.appender_id)
            if known is not None and record.sequence <= known.sequence:
                offsets.append(known.offset_bytes if record.sequence == known.sequence else STALE)
            elif end + record.length_bytes > self.chunk_bytes or (
                known is None and len(self.last_records) + len(planned) >= APPENDERS_MAX
            ):
                offsets.append(FULL)
            else:
                planned[record.appender_id] = LastRecord(record.sequence, end, record.length_bytes)
                records.append(record)
                offsets.append(end)
                end += record.length_bytes
        batch = Batch(
            serial=self.serial + 1, offset_bytes=self.length_bytes, records=tuple(records)
        )
        return batch, offsets

    def check(self, batch: Batch) -> None:
        """Raise ``WriterFenced`` unless the batch is the one to come next."""
        self.check_not_frozen()
        if (batch.serial, batch.offset_bytes) != (self.serial + 1, self.length_bytes):
            raise WriterFenced(
                f"mutation {batch.serial} at {batch.offset_bytes} does not follow {self.serial},"
                f" which ends at {self.length_bytes}"
            )
        if batch.end_bytes > self.chunk_bytes or not batch.records:
            raise WriterFenced(f"mutation {batch.serial} does not fit into the chunk")

    def apply(self, batch: Batch) -> None:
        """The batch is durable here."""
        offset = batch.offset_bytes
        for record in batch.records:
            self.last_records[record.appender_id] = LastRecord(
                record.sequence, offset, record.length_bytes
            )
            offset += record.length_bytes
        self.serial, self.length_bytes = batch.serial, offset

    def commit(self, committed_bytes: int) -> None:
        """Every member has these bytes."""
        self.committed_bytes = max(self.committed_bytes, committed_bytes)

    def freeze(self) -> None:
        self.is_frozen = True

    def cut(self, length_bytes: int) -> None:
        """Forget what was never acknowledged; only a frozen replica is cut."""
        assert self.is_frozen
        assert self.committed_bytes <= length_bytes <= self.length_bytes
        self.length_bytes = length_bytes
        self.last_records = {
            appender: last
            for appender, last in self.last_records.items()
            if last.offset_bytes + last.length_bytes <= length_bytes
        }

    def find(self, appender_id: int, sequence: int) -> int:
        """Where a record stands; -1 if it is not here."""
        last = self.last_records.get(appender_id)
        return last.offset_bytes if last is not None and last.sequence == sequence else -1

    def check_not_frozen(self) -> None:
        if self.is_frozen:
            raise WriterFenced("the chunk takes no more records here")
