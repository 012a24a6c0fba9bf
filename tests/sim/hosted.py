"""The production machines of files and jobs, as one member of the simulated group hosts them.

Each stands behind a watch that shows the world what it did: an entry's command, reply and, for one
entry in some, the checksum of the whole state; what was frozen, at which entry; what was restored.
Clients stamp a change with ``stamp(operation, tries)`` where a master would put its clock. That
differs from try to try as it does there, and tells which operation an entry executes.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import msgspec

from minigfs.master.commands import (
    AllocateChunks,
    Clone,
    CreateFile,
    MakeDirectory,
    PublishFile,
    Remove,
    Rename,
    Transact,
    decode_command,
)
from minigfs.master.machine import FILE_SYSTEM_MACHINE, FileSystemMachine
from minigfs.master.state import FileSystemState
from minigfs.replication.machines import Machine
from minimr.cluster.jobs_term import JOBS_MACHINE
from minimr.cluster.publish import PUBLISH_MACHINE, PublishCommand, PublishMachine
from minimr.coordinator.machine import CoordinatorMachine
from minimr.coordinator.state import CoordinatorState
from minimr.ids import JobId
from tests.sim.checks.states import Applied, MachineWatch

__all__ = ["Hosted", "HostedObserver", "operation_of_stamp", "stamp"]

STATE_CHECK_EVERY = 8  # entries of which the state behind one is compared
TRIES_PER_OPERATION = 100
_FROM_CLIENTS = (
    *(AllocateChunks, CreateFile, MakeDirectory, PublishFile, Remove, Rename),
    *(Clone, Transact),
)
_OPERATIONS_END = 10**10  # a client's stamps are below it; a clock's milliseconds above


def stamp(operation: int, tries: int) -> int:
    """The ``now_ms`` of a client's change."""
    return operation * TRIES_PER_OPERATION + tries


def operation_of_stamp(now_ms: int) -> int:
    return now_ms // TRIES_PER_OPERATION


def _operation_of(command: bytes) -> int | None:
    decoded = decode_command(command)
    if not isinstance(decoded, _FROM_CLIENTS) or decoded.now_ms >= _OPERATIONS_END:
        return None
    return operation_of_stamp(decoded.now_ms)


@dataclass(slots=True, kw_only=True)
class Hosted:
    """One life's machines. ``applied_index`` is that of the member."""

    watch: MachineWatch
    applied_index: Callable[[], int]
    observer: "HostedObserver | None"
    """None: there are no jobs."""
    files: FileSystemMachine
    jobs: CoordinatorMachine

    @classmethod
    def make(
        cls,
        watch: MachineWatch,
        applied_index: Callable[[], int],
        observer: "HostedObserver | None",
    ) -> "Hosted":
        return cls(
            watch=watch,
            applied_index=applied_index,
            observer=observer,
            files=FileSystemMachine(),
            jobs=CoordinatorMachine(),
        )

    def machines(self) -> dict[str, Machine]:
        """By their names in the log."""
        machines: dict[str, Machine] = {
            FILE_SYSTEM_MACHINE: _Watched(FILE_SYSTEM_MACHINE, self.files, self)
        }
        if self.observer is not None:
            publish = PublishMachine(self.files, self.jobs)
            machines[JOBS_MACHINE] = _Watched(JOBS_MACHINE, self.jobs, self)
            machines[PUBLISH_MACHINE] = _Watched(PUBLISH_MACHINE, publish, self)
        return machines

    def content(self) -> bytes:
        """The state of all of them."""
        return _content(self.files.freeze()) + _content(self.jobs.freeze())


class HostedObserver(Protocol):
    """Sees every entry when it is applied for the first time."""

    def changed(
        self, index: int, command: bytes, before: CoordinatorState, after: CoordinatorState
    ) -> None: ...

    def publishes(
        self,
        job_id: JobId,
        files: tuple[FileSystemState, FileSystemState],
        jobs: tuple[CoordinatorState, CoordinatorState],
    ) -> None: ...

    def files_changed(self, state: FileSystemState) -> None: ...


class _Watched:
    """A ``Machine`` that is another one and tells what it does."""

    def __init__(self, name: str, machine: Machine, hosted: Hosted) -> None:
        self._name = name
        self._machine = machine
        self._hosted = hosted

    def apply(self, index: int, command: bytes) -> bytes:
        hosted = self._hosted
        files, jobs = hosted.files.state, hosted.jobs.state
        reply = self._machine.apply(index, command)
        state: int | None = None
        if index % STATE_CHECK_EVERY == 0:
            state = zlib.crc32(hosted.content())
        operation = _operation_of(command) if self._name == FILE_SYSTEM_MACHINE else None
        applied = Applied(command=command, reply=reply, state=state, operation=operation)
        if hosted.watch.applied(self._name, index, applied) and hosted.observer is not None:
            self._show(hosted.observer, index, command, files, jobs)
        hosted.watch.before_execution()
        return reply

    def _show(
        self,
        observer: HostedObserver,
        index: int,
        command: bytes,
        files: FileSystemState,
        jobs: CoordinatorState,
    ) -> None:
        hosted = self._hosted
        if self._name == JOBS_MACHINE:
            observer.changed(index, command, jobs, hosted.jobs.state)
        elif self._name == PUBLISH_MACHINE:
            publish = msgspec.msgpack.decode(command, type=PublishCommand)
            observer.publishes(
                publish.job_id, (files, hosted.files.state), (jobs, hosted.jobs.state)
            )
        else:
            observer.files_changed(hosted.files.state)

    def freeze(self) -> Iterator[bytes]:
        """The records are drawn later, while entries are applied; what they must show is now."""
        now = _content(self._machine.freeze())
        self._hosted.watch.state_at(self._name, self._hosted.applied_index(), now)
        return self._machine.freeze()

    def restore(self, records: Iterator[bytes]) -> None:
        drawn = list(records)
        self._machine.restore(iter(drawn))
        self._hosted.watch.machine_restored(_content(drawn))
        again = _content(self._machine.freeze())
        self._hosted.watch.machine_restored(again if drawn else b"")


def _content(records: Iterator[bytes] | list[bytes]) -> bytes:
    """Records told apart: a frozen state is a sequence of them."""
    return b"".join(len(record).to_bytes(4, "big") + record for record in records)
