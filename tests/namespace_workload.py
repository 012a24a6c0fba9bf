"""Many clients at once on one small tree, through the real client library, with a history.

Each client is a thread with a connection, a session and a favourite master of its own. They work in
one small directory until it has seen ``OPERATIONS_PER_TREE`` operations, then in the next: short
histories are judged fast, and the trees left behind are read again at the end, when they must still
be what they were. What a client cannot know is recorded as unknown: the workload asks no question
twice.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random
from types import TracebackType
from typing import Self

from minigfs.client.client import MinigfsClient
from minigfs.client.config import ClientConfig
from minigfs.errors import FileSystemError, InvalidPath, MinigfsError
from minigfs.master.messages import EntryKind, FileStatus
from tests.linearizability.history import Call, History, Operation, Value

__all__ = ["NamespaceWorkload"]

OPERATIONS_PER_TREE = 250
NAMES = ("a", "b", "d", "d/a", "d/b", "e", "e/a")
_THINK_S_MAX = 0.02
_AS_IT_IS = -1  # the content of a clone's files


class NamespaceWorkload:
    """Runs while its ``with`` block does; what came of it is asked afterwards.

    ``config.masters`` is in another order for each client, so that they start at different ones.
    ``name`` sets its trees apart from those of other workloads on the same cluster.
    """

    def __init__(
        self, config: ClientConfig, *, name: str = "tree", clients: int = 6, seed: int = 0
    ) -> None:
        self._name = name
        self.history = History(clock=time.monotonic_ns)
        self.errors: list[MinigfsError] = []
        """Why outcomes are unknown."""
        self._clients = [
            _Client(self, f"c{number}", _from_another(config, number), Random(f"{seed}/{number}"))
            for number in range(clients)
        ]
        self._threads = [
            threading.Thread(target=self._run, args=(client,), name=client.name)
            for client in self._clients
        ]
        self._stop = threading.Event()
        self._crashes: list[BaseException] = []
        self._lock = threading.Lock()
        self._count = 0
        self.answered_count = 0
        self._answered_at = [time.monotonic()]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        if exc is None and self._crashes:
            raise self._crashes[0]

    def stop(self) -> None:
        """Every client ends what it is doing and begins nothing new."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_answers(self, count: int, timeout_s: float = 15.0) -> None:
        """Return when so many more operations were answered: the service works."""
        goal = self.answered_count + count
        deadline = time.monotonic() + timeout_s
        while self.answered_count < goal and not self._crashes:
            assert time.monotonic() < deadline, f"no {count} answers within {timeout_s} s"
            time.sleep(0.01)

    def longest_stall_s(self) -> float:
        """The longest time in which nobody was answered anything."""
        times = self._answered_at
        return max(after - before for before, after in pairwise(times))

    def slowest_answer_s(self) -> float:
        """The longest time that an answered client waited."""
        waits = [
            operation.returned_at - operation.invoked_at
            for operation in self.history.operations()
            if operation.returned_at is not None
        ]
        return max(waits) / 1_000_000_000

    def read_everything(self) -> tuple[Operation, ...]:
        """The history, closed by one client's look at every tree."""
        reader = self._clients[0]
        for number in range(self._count // OPERATIONS_PER_TREE + 1):
            tree = self.tree(number)
            for path in (tree, f"{tree}/d", f"{tree}/e"):
                reader.perform(("list", path))
        return self.history.operations()

    def tree(self, number: int) -> str:
        return f"/{self._name}-{number:03d}"

    def next_number(self) -> int:
        with self._lock:
            self._count += 1
            return self._count

    def note_answer(self) -> None:
        with self._lock:
            self.answered_count += 1
            self._answered_at.append(time.monotonic())

    def _run(self, client: "_Client") -> None:
        try:
            while not self._stop.is_set():
                client.perform(client.draw_call(self.next_number()))
                self._stop.wait(client.random.uniform(0, _THINK_S_MAX))
        except BaseException as error:  # raised again where the workload was started
            self._crashes.append(error)


def _from_another(config: ClientConfig, number: int) -> ClientConfig:
    """A config of its own, so that the client shares no socket, session or knowledge."""
    shift = number % len(config.masters)
    masters = config.masters[shift:] + config.masters[:shift]
    return replace(config, masters=masters, timeout_ms=config.timeout_ms + number)


class _Client:
    def __init__(
        self, workload: NamespaceWorkload, name: str, config: ClientConfig, random: Random
    ) -> None:
        self._workload = workload
        self.name = name
        self.random = random
        self._files = MinigfsClient(config)

    def draw_call(self, number: int) -> Call:
        """``number`` is unique, and the size of the file if it creates one."""
        random = self.random
        tree = self._workload.tree(number // OPERATIONS_PER_TREE)
        path, other = (f"{tree}/{random.choice(NAMES)}" for _ in range(2))
        match random.randrange(12):
            case 10:
                return ("clone", path, other, _AS_IT_IS, random.random() < 0.5)
            case 11:
                moved = ("rename", path, other, random.random() < 0.5)
                return ("both", moved, ("mkdir", f"{tree}/{random.choice(NAMES)}"))
            case 0 | 1:
                return ("create", path, number, random.random() < 0.5)
            case 2:
                return ("mkdir", path)
            case 3 | 4 | 5:
                return ("rename", path, other, random.random() < 0.5)
            case 6:
                return ("remove", path, random.random() < 0.5)
            case 7:
                return ("stat", path)
        return ("list", random.choice([tree, path]))

    def perform(self, call: Call) -> None:
        """Do it and record what is known of it."""
        history = self._workload.history
        number = history.invoke(self.name, call)
        try:
            answer = self._ask(call)
        except (FileSystemError, InvalidPath) as refusal:
            answer = ("refused", refusal.code)
        except MinigfsError as error:
            history.unknown(number)
            self._workload.errors.append(error)
            return
        history.ok(number, answer)
        self._workload.note_answer()

    def _ask(self, call: Call) -> Value:
        match call:
            case ("create", str(path), int(size_bytes), bool(exclusive)):
                with self._files.open_writer(path, exclusive=exclusive) as writer:
                    writer.write(b"x" * size_bytes)
            case ("mkdir", str(path)):
                self._files.make_directory(path)
            case ("rename", str(source), str(target), bool(replace_)):
                self._files.rename(source, target, replace=replace_)
            case ("remove", str(path), bool(recursive)):
                removed = self._files.remove(path, recursive=recursive)
                return (removed.file_count, removed.directory_count)
            case ("clone", str(source), str(target), _, bool(replace_)):
                self._files.clone(source, target, replace=replace_)
            case (
                "both",
                ("rename", str(source), str(target), bool(replace_)),
                ("mkdir", str(path)),
            ):
                with self._files.transaction() as change:
                    change.rename(source, target, replace=replace_)
                    change.make_directory(path)
            case ("stat", str(path)):
                return _told(self._files.stat(path))
            case ("list", str(path)):
                return _listed(list(self._files.list_directory(path)))
            case _:
                raise AssertionError(call)
        return None


def _told(status: FileStatus) -> Value:
    return "directory" if status.kind is EntryKind.DIRECTORY else status.size_bytes


def _listed(statuses: Sequence[FileStatus]) -> Value:
    return tuple((status.path.rpartition("/")[2], _told(status)) for status in statuses)
