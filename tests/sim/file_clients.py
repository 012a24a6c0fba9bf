"""Clients of the file system: they make, rename, remove and look, in a tree where they meet.

A change goes through the log under a session, as production clients send it, with retries at other
members; a look goes beside the log. A file is made in two or three requests (begin, chunks,
publish); which file stands somewhere is told by the stamp of its begin. The history is judged by
the namespace model of ``tests/linearizability``.
"""

from collections.abc import Callable

from minigfs.errors import MinigfsError
from minigfs.ids import ChunkHandle, ChunkserverId, FileId
from minigfs.master import commands
from minigfs.master.listing import list_page, status_of
from minigfs.master.machine import FILE_SYSTEM_MACHINE
from minigfs.master.messages import EntryKind, FileStatus
from minigfs.master.namespace import get_inode, split_path
from tests.linearizability.history import Call, History, OperationId, Value
from tests.sim.hosted import operation_of_stamp, stamp
from tests.sim.process import Process
from tests.sim.requests import Answer, Group, Request, Requester
from tests.sim.scheduler import MS

__all__ = ["FileClient"]

PATHS = tuple(
    f"/{top}{below}" for top in "ab" for below in ("/x", "/y", "/d", "/d/x", "/d/e", "/d/e/y")
)
ACTIONS = (
    *("create",) * 5,
    *("mkdir",) * 3,
    *("rename",) * 4,
    *("remove",) * 3,
    *("clone",) * 2,
    *("both",) * 2,
    *("stat",) * 4,
    *("list",) * 3,
)
HOARD_SHARE = 0.1  # of its operations, while it may
HOARD_CHUNKS = 2_100  # more than is taken apart in one step
SERVERS = tuple(ChunkserverId(f"s{number}") for number in range(3))
LIST_MAX = 100
TRASH_KEPT_MS = 60_000
_WITHOUT_AN_ANSWER = (
    commands.Done | commands.FilePublished | commands.CloneBegun | commands.Transacted
)


class FileClient(Requester):
    """One operation at a time until ``stop``. ``first`` sets its operations apart; ``hoards`` times
    it begins a file of very many chunks."""

    def __init__(
        self, group: Group, history: History, name: str, first: int, seed: str, *, hoards: int
    ) -> None:
        super().__init__(group, name, seed)
        self._history = history
        self._next_number = first
        self._is_configured = False
        self._hoards = hoards
        self._rest()

    def _rest(self) -> None:
        think_us = self._group.options.think_us
        self._group.scheduler.after(self._chance.randrange(2 * think_us), self._begin)

    def _begin(self) -> None:
        if self.stopped:
            return
        if not self.has_session():
            self._group.scheduler.after(20 * MS, self._begin)
        elif not self._is_configured:
            self._look("is there a file system?", _is_configured, self._see_configured)
        elif self._hoards and self._chance.random() < HOARD_SHARE:
            self._hoards -= 1
            self._hoard()
        else:
            self._submit(self._draw_call())

    def _see_configured(self, answer: Answer) -> None:
        """As in production, where nobody is served before the file system has been set up."""
        self._is_configured = answer.known and answer.value
        self._rest()

    def _draw_call(self) -> Call:
        chance, action = self._chance, self._chance.choice(ACTIONS)
        path = chance.choice(PATHS)
        match action:
            case "create":
                return (action, path, self._next_number, chance.random() < 0.7)
            case "rename":
                return (action, path, chance.choice(PATHS), chance.random() < 0.5)
            case "remove":
                return (action, path, chance.random() < 0.6)
            case "clone":
                target, replace = chance.choice(PATHS), chance.random() < 0.5
                return (action, path, target, self._next_number, replace)
            case "both":
                moved = ("rename", path, chance.choice(PATHS), chance.random() < 0.5)
                then = chance.choice(("mkdir", "remove"))
                other = chance.choice(PATHS)
                return (action, moved, (then, other, True) if then == "remove" else (then, other))
            case _:
                return (action, path)

    # One operation

    def _submit(self, call: Call) -> None:
        recorded = self._history.invoke(f"{self.name}.{self._next_number}", call)
        match call:
            case ("create", str(path), _, bool(exclusive)):
                self._create(recorded, path, exclusive=exclusive)
            case ("stat" | "list", str(path)):
                look = _stat if call[0] == "stat" else _list
                self._look(str(call), lambda process: look(process, path), self._told(recorded))
            case _:
                make = _change_of(call)
                self._change(str(call), make, self._told(recorded))

    def _told(self, recorded: OperationId) -> Callable[[Answer], None]:
        return lambda answer: self._end(recorded, answer)

    def _end(self, recorded: OperationId, answer: Answer) -> None:
        if answer.known:
            value = answer.value
            if isinstance(value, commands.CloneBegun | commands.Transacted):
                self._group.coverage[type(value).__name__] += 1
            if isinstance(value, _WITHOUT_AN_ANSWER):
                value = None
            elif isinstance(value, commands.EntriesRemoved):
                value = (value.file_count, value.directory_count)
            elif isinstance(value, commands.Refused):
                value = ("refused", value.code)
                self._group.coverage["refusals"] += 1
            self._history.ok(recorded, value)
        else:
            self._history.unknown(recorded)
        self._group.coverage["file operations"] += 1
        self._rest()

    def _nothing_happened(self, recorded: OperationId) -> None:
        self._history.fail(recorded)
        self._rest()

    def _look(
        self, label: str, look: Callable[[Process], Value], then: Callable[[Answer], None]
    ) -> None:
        self.ask(Request(number=self._number(), label=label, then=then, read=look))

    def _change(
        self, label: str, make: Callable[[int], commands.Command], then: Callable[[Answer], None]
    ) -> None:
        number = self._number()
        self.ask(
            Request(
                number=number,
                label=label,
                then=then,
                machine=FILE_SYSTEM_MACHINE,
                command=lambda tries: commands.encode_command(make(stamp(number, tries))),
                decode=commands.decode_reply,
            )
        )

    def _number(self) -> int:
        self._next_number += 1
        return self._next_number - 1

    # A file: begun, given a chunk or none, published

    def _create(self, recorded: OperationId, path: str, *, exclusive: bool) -> None:
        chunk_count = self._chance.randrange(2)

        def begun(answer: Answer) -> None:
            if isinstance(answer.value, commands.Refused):
                self._end(recorded, answer)
            elif not answer.known or self._is_gone():
                self._nothing_happened(recorded)
            elif chunk_count:
                file_id = answer.value.file_id
                self._allocate(file_id, 1, lambda answer: allocated(file_id, answer))
            else:
                self._publish(recorded, answer.value.file_id, path, (), exclusive=exclusive)

        def allocated(file_id: FileId, answer: Answer) -> None:
            if not isinstance(answer.value, commands.ChunksAllocated) or self._is_gone():
                self._nothing_happened(recorded)
                return
            handles = answer.value.handles
            self._publish(recorded, file_id, path, handles, exclusive=exclusive)

        self._change(
            f"create {path}", lambda now: commands.CreateFile(now, path, exclusive, 2), begun
        )

    def _publish(
        self,
        recorded: OperationId,
        file_id: FileId,
        path: str,
        handles: tuple[ChunkHandle, ...],
        *,
        exclusive: bool,
    ) -> None:
        chunks = tuple(commands.SealedReplicas(handle, 7, 7, SERVERS[:1]) for handle in handles)

        def published(answer: Answer) -> None:
            if isinstance(answer.value, commands.Refused) and answer.value.code == "writer-fenced":
                self._group.coverage["fenced writers"] += 1
                self._nothing_happened(recorded)
            else:
                self._end(recorded, answer)

        self._change(
            f"publish {file_id} at {path}, exclusive {exclusive}",
            lambda now: commands.PublishFile(now, file_id, path, chunks, exclusive),
            published,
        )

    def _allocate(self, file_id: FileId, count: int, then: Callable[[Answer], None]) -> None:
        sets = (SERVERS[:1],) * count
        self._change(
            f"{count} chunks of {file_id}",
            lambda now: commands.AllocateChunks(now, file_id, 0, sets),
            then,
        )

    def _is_gone(self) -> bool:
        """Between two requests the session was lost, and with it the file that was begun."""
        return self._session is None

    def _hoard(self) -> None:
        """Begin a large file and forget it: taking it apart needs more than one step."""

        def begun(answer: Answer) -> None:
            if isinstance(answer.value, commands.FileCreated) and not self._is_gone():
                self._group.coverage["hoards"] += 1
                self._allocate(answer.value.file_id, HOARD_CHUNKS, lambda answer: self._rest())
            else:
                self._rest()

        self._change("hoard", lambda now: commands.CreateFile(now, "/a/big", True, 2), begun)


def _change_of(call: Call) -> Callable[[int], commands.Command]:
    match call:
        case ("mkdir", str(path)):
            return lambda now: commands.MakeDirectory(now, path, parents=False, exist_ok=False)
        case ("rename", str(source), str(target), bool(replace)):
            return lambda now: commands.Rename(now, source, target, replace)
        case ("remove", str(path), bool(recursive)):
            keep_ms = TRASH_KEPT_MS if recursive else 0
            return lambda now: commands.Remove(now, path, recursive, keep_ms)
        case ("clone", str(source), str(target), _, bool(replace)):
            return lambda now: commands.Clone(now, source, target, replace)
        case ("both", tuple(one), tuple(other)):
            return lambda now: commands.Transact(
                now, (), (_part_of(one, now), _part_of(other, now))
            )
    raise AssertionError(call)


def _part_of(call: Call, now: int) -> commands.Change:
    part = _change_of(call)(now)
    assert isinstance(part, commands.Change)
    return part


# What a member that may be read shows


def _is_configured(process: Process) -> bool:
    return process.hosted.files.state.config is not None


def _stat(process: Process, path: str) -> Value:
    state = process.hosted.files.state
    try:
        return _kind(status_of(path, get_inode(state, split_path(path))))
    except MinigfsError as refusal:
        return ("refused", refusal.code)


def _list(process: Process, path: str) -> Value:
    try:
        page = list_page(process.hosted.files.state, path, "", LIST_MAX)
    except MinigfsError as refusal:
        return ("refused", refusal.code)
    return tuple((entry.path.rpartition("/")[2], _kind(entry)) for entry in page.entries)


def _kind(status: FileStatus) -> Value:
    is_file = status.kind is EntryKind.FILE
    return operation_of_stamp(status.created_ms) if is_file else "directory"
