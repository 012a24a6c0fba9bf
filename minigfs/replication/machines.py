"""The replicated machines of one member: all that the log's commands have led to.

Several machines share a log; an entry names the one it is for. Beside the ones it is given, the
set has two of its own: the client sessions, which decide whether a command is executed at all, and
the members' addresses. Everything here is a function of the entries applied, so that every member
comes to the same state and gives the same replies.

A snapshot is the whole of it, the sessions included: a member that forgot them would execute a
retry a second time (thesis sections 5.1 and 6.3). ``freeze`` is cheap, whatever the size of the
state: it holds on to immutable values, and encodes them while later entries are applied.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol

import msgspec
from immutables import Map

from minigfs.errors import CorruptLog, CorruptSnapshot, MinigfsError
from minigfs.raft import Configuration, Entry, EntryKind, NodeId, SafetyViolation
from minigfs.replication.commands import (
    MEMBERS_MACHINE,
    SESSIONS_MACHINE,
    MemberAddress,
    decode_logged_command,
    decode_member_command,
    encode_member_command,
)
from minigfs.replication.sessions import SessionSettings, SessionTable
from minigfs.replication.snapshot_stream import pack, unpack_head, unpack_section

__all__ = ["Machine", "ReplicatedMachines"]


class Machine(Protocol):
    """A deterministic state machine: the same commands in the same order, the same replies."""

    def apply(self, index: int, command: bytes) -> bytes:
        """Apply one committed command. A refusal is a reply; raising ends the process."""
        ...

    def freeze(self) -> Iterator[bytes]:
        """The state as it is now, as records of any number and size.

        The call returns at once. The records are made as they are drawn, each in a few
        milliseconds at most, in any thread, while ``apply`` goes on; they do not show what it
        changes. Equal states give equal records.
        """
        ...

    def restore(self, records: Iterator[bytes]) -> None:
        """Replace the state with a frozen one. Without any record: the state before all commands.

        ``records`` are those ``freeze`` gave.
        """
        ...


class ReplicatedMachines:
    """Applies a log's entries and answers for each; see the module and ``sessions``."""

    def __init__(
        self, machines: Mapping[str, Machine], settings: SessionSettings | None = None
    ) -> None:
        """``machines`` by their names in the log; names, once used, are kept for ever."""
        self._sessions = SessionTable(settings)
        self._members = _MemberAddresses()
        assert not {SESSIONS_MACHINE, MEMBERS_MACHINE} & machines.keys()
        self._machines: dict[str, Machine] = {
            SESSIONS_MACHINE: self._sessions,
            MEMBERS_MACHINE: self._members,
            **machines,
        }
        self._applied_index = 0

    @property
    def applied_index(self) -> int:
        """Of the last entry applied, or of the snapshot restored."""
        return self._applied_index

    @property
    def member_addresses(self) -> Mapping[NodeId, str]:
        """Where the members said they listen; a snapshot of it, never changed in place."""
        return self._members.addresses

    @property
    def sessions(self) -> SessionTable:
        """To be looked at; only ``apply`` changes it."""
        return self._sessions

    def __contains__(self, machine: str) -> bool:
        """Whether commands for ``machine`` can be applied here: to be asked before proposing."""
        return machine in self._machines

    def apply(self, entry: Entry) -> bytes | MinigfsError:
        """Apply the next committed entry; what its proposer is to be told.

        Every entry, of every kind, in order of the log without a gap. Those that are no command
        are answered ``b""``. An error means that nothing was executed; it is the same on every
        member. Raises ``CorruptLog`` for an entry this release cannot apply, ``SafetyViolation``
        for one out of order: the process must end.
        """
        index = entry.index
        if index != self._applied_index + 1:
            raise SafetyViolation(f"entry {index} is to be applied after {self._applied_index}")
        if entry.kind is EntryKind.COMMAND:
            answer = self._apply_command(index, entry.data)
        else:
            answer = b""
            if entry.configuration is not None:
                self._members.forget_retired(entry.configuration)
        self._applied_index = index
        return answer

    def freeze(self) -> Iterator[bytes]:
        """All machines as they are at ``applied_index``, in pieces of 256 KiB at most.

        Cheap; the pieces are made as they are drawn, in any thread, while entries are applied.
        """
        machines = sorted(self._machines.items())
        return pack(self._applied_index, [(name, machine.freeze()) for name, machine in machines])

    def restore(self, pieces: Iterator[bytes], index: int) -> None:
        """Become what was frozen at ``index``; the next entry applied is the one behind it.

        The pieces may be cut anywhere. ``CorruptSnapshot`` if they are not what ``freeze`` gave,
        or of another index; the machines are then undefined, and the process must end.
        """
        head, stream = unpack_head(pieces)
        if head.applied_index != index:
            raise CorruptSnapshot(
                f"the snapshot is of entry {head.applied_index} and stands for entry {index}: "
                "remove the file, and the group's other members will send theirs"
            )
        for name in head.machines:
            if name not in self._machines:
                raise CorruptSnapshot(
                    f"the snapshot has a machine {name!r} that this release does not know: start "
                    "this master with the release that wrote it"
                )
        for name, machine in self._machines.items():
            if name not in head.machines:  # it is younger than the snapshot
                machine.restore(iter(()))
        try:
            for name in head.machines:
                records = unpack_section(stream)
                self._machines[name].restore(records)
                if next(records, None) is not None:
                    raise CorruptSnapshot(
                        f"the snapshot's machine {name!r} has records that this release cannot "
                        "read: start this master with the release that wrote it"
                    )
        except msgspec.DecodeError as error:
            raise CorruptSnapshot(
                f"the snapshot's machine {name!r} cannot be read ({error}): a newer release wrote "
                "it? Start this master with that release"
            ) from error
        stream.check_at_end()
        self._applied_index = index

    def _apply_command(self, index: int, data: bytes) -> bytes | MinigfsError:
        logged = decode_logged_command(data, index)
        machine = self._machines.get(logged.machine)
        if machine is None:
            raise CorruptLog(
                f"entry {index} of the log is for a machine {logged.machine!r} that this release "
                "does not know: start this master with the release that wrote it"
            )
        sessions, origin = self._sessions, logged.origin
        sessions.advance(logged.now_ms)
        if origin is None:
            return machine.apply(index, logged.command)
        known = sessions.admit(origin)
        if known is not None:
            return known
        reply = machine.apply(index, logged.command)
        sessions.record(origin, reply)
        return reply


class _MemberAddresses:
    """The machine behind ``member_addresses``."""

    def __init__(self) -> None:
        self.addresses: Map[NodeId, str] = Map()

    def apply(self, index: int, command: bytes) -> bytes:
        address = decode_member_command(command)
        self.addresses = self.addresses.set(address.member, address.address)
        return b""

    def forget_retired(self, configuration: Configuration) -> None:
        for member in configuration.retired:
            if member in self.addresses:
                self.addresses = self.addresses.delete(member)

    def freeze(self) -> Iterator[bytes]:
        addresses = sorted(self.addresses.items())
        return (encode_member_command(MemberAddress(*pair)) for pair in addresses)

    def restore(self, records: Iterator[bytes]) -> None:
        self.addresses = Map()
        for record in records:
            self.apply(0, record)
