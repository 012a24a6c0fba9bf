"""Hosts replicated machines: a command is durable first, applied second, answered third.

::

    propose -> waiting -> [ append, sync ] -> apply in log order -> reply
                            in a thread,        on the event loop
                            one batch at a time

Commands that arrive while a batch is being synced form the next batch, so one sync serves all of
them (group commit). The group has one member for now; Raft takes the place of the middle, between
``propose`` and ``apply``, and neither end will know.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import msgspec

from minigfs.errors import CorruptLog, NoSpace, OutcomeUnknown, Unreachable, UsageError
from minigfs.replication.wal import Record, WriteAheadLog
from minigfs.replication.wal_format import PAYLOAD_BYTES_MAX

__all__ = ["Machine", "MemberStatus", "ReplicatedHost"]

ENTRY = 1  # record type: machine name (length, bytes), then the command
WAITING_COUNT_MAX = 10_000  # proposals; more wait before they are taken in
BATCH_BYTES_MAX = 8 * 1024 * 1024  # one sync's worth; a larger command goes alone
COMMAND_BYTES_MAX = PAYLOAD_BYTES_MAX - 256


class Machine(Protocol):
    """A deterministic state machine: the same commands in the same order, the same replies."""

    def apply(self, index: int, command: bytes) -> bytes:
        """Apply one committed command. A refusal is a reply; raising ends the process."""
        ...


class MemberStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One member of the group, for reports."""

    member_id: str
    role: str
    term: int
    address: str
    commit_index: int


class _Proposal(NamedTuple):
    machine: str
    command: bytes
    reply: asyncio.Future[bytes]


class ReplicatedHost:
    """Belongs to one event loop. ``start`` replays the log; then ``propose`` may be called."""

    def __init__(self, wal: WriteAheadLog, machines: Mapping[str, Machine]) -> None:
        self._wal = wal
        self._machines = machines
        self._commit_index = 0
        self._waiting: deque[_Proposal] = deque()
        self._slots = asyncio.Semaphore(WAITING_COUNT_MAX)
        self._wake = asyncio.Event()
        self._stopping = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="wal")
        self._writer: asyncio.Task[None] | None = None
        self._member_id, self._address = "", ""

    @property
    def commit_index(self) -> int:
        """Index of the last entry that is durable and applied."""
        return self._commit_index

    def introduce(self, member_id: str, address: str) -> None:
        """Say who this member is and where it listens, for ``members``."""
        self._member_id, self._address = member_id, address

    def members(self) -> tuple[MemberStatus, ...]:
        return (
            MemberStatus(
                member_id=self._member_id,
                role="leader",
                term=1,
                address=self._address,
                commit_index=self._commit_index,
            ),
        )

    async def start(self) -> None:
        """Apply every entry of the log, then take proposals."""
        for record in self._wal.read_all():
            if record.type != ENTRY or record.log_index != self._commit_index + 1:
                raise CorruptLog(
                    f"entry {self._commit_index + 1} of the log is followed by a record of type "
                    f"{record.type} with index {record.log_index}: a newer release wrote it?"
                )
            self._apply(record.log_index, *_decode_entry(record.payload))
        self._writer = asyncio.create_task(self._write_batches(), name="wal-writer")

    async def propose(self, machine: str, command: bytes) -> bytes:
        """The machine's reply, once the command is durable and applied.

        Raises ``NoSpace`` if the disk is full: the command was not and will not be applied.
        ``OutcomeUnknown`` if the log failed: it may be applied after the next start. Being
        cancelled does not take the command back.
        """
        assert machine in self._machines
        if len(command) > COMMAND_BYTES_MAX:
            raise UsageError(
                f"a command of {len(command)} bytes is too large, {COMMAND_BYTES_MAX} go"
            )
        await self._slots.acquire()
        if self._stopping or self._writer is None or self._writer.done():
            self._slots.release()
            raise Unreachable("this master is stopping: try again when it is back")
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Proposal(machine, command, reply))
        self._wake.set()
        return await reply

    async def wait_failed(self) -> None:
        """Return after ``stop``; raise if the log or a machine failed: the process must end."""
        assert self._writer is not None
        await asyncio.shield(self._writer)

    async def stop(self) -> None:
        """Finish what was proposed, then close the log."""
        self._stopping = True
        self._wake.set()
        if self._writer is not None:
            await asyncio.wait([self._writer])
        self._thread.shutdown()
        self._wal.close()

    async def _write_batches(self) -> None:
        batch: list[_Proposal] = []
        try:
            while self._waiting or not self._stopping:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    batch = self._take_batch()
                    await self._commit(batch)
                    batch = []
        finally:
            # Only a failure leaves any: some of the batch may be on disk.
            lost = OutcomeUnknown("the master's log failed before the change was known durable")
            for proposal in (*batch, *self._waiting):
                _refuse(proposal, lost)

    def _take_batch(self) -> list[_Proposal]:
        batch = [self._waiting.popleft()]
        batch_bytes = len(batch[0].command)
        while self._waiting and batch_bytes + len(self._waiting[0].command) <= BATCH_BYTES_MAX:
            batch.append(self._waiting.popleft())
            batch_bytes += len(batch[-1].command)
        for _ in batch:
            self._slots.release()
        return batch

    async def _commit(self, batch: list[_Proposal]) -> None:
        """Durable, applied, answered: in this order."""
        records = [
            Record(ENTRY, self._commit_index + 1 + i, _encode_entry(p.machine, p.command))
            for i, p in enumerate(batch)
        ]
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, records)
        except NoSpace as full:
            for proposal in batch:
                _refuse(proposal, full)
            return
        for record, proposal in zip(records, batch, strict=True):
            reply = self._apply(record.log_index, proposal.machine, proposal.command)
            if not proposal.reply.done():
                proposal.reply.set_result(reply)

    def _write(self, records: list[Record]) -> None:
        self._wal.append(records)
        self._wal.sync()

    def _apply(self, index: int, machine: str, command: bytes) -> bytes:
        reply = self._machines[machine].apply(index, command)
        self._commit_index = index
        return reply


def _refuse(proposal: _Proposal, error: Exception) -> None:
    if not proposal.reply.done():
        proposal.reply.set_exception(error)


def _encode_entry(machine: str, command: bytes) -> bytes:
    name = machine.encode()
    return bytes((len(name),)) + name + command


def _decode_entry(payload: bytes) -> tuple[str, bytes]:
    name_end = 1 + payload[0]
    return payload[1:name_end].decode(), payload[name_end:]
