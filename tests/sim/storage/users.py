"""Client processes of a storage world: production clients that write, append, read and rename.

Each file belongs to one process, which knows what it must hold; logs are shared by all appenders.
What a process was doing when it crashed, and what it was told has an unknown outcome, may be done
or not.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from minigfs.client import client as client_module
from minigfs.client.client import MinigfsClient
from minigfs.client.config import ClientConfig
from minigfs.errors import (
    DamageError,
    FileMissing,
    MinigfsError,
    OutcomeUnknown,
    SecurityError,
    UsageError,
)
from tests.append_history import AppendHistory, make_record
from tests.sim.scheduler import MS
from tests.sim.storage.fibers import Life
from tests.sim.storage.servers import CLUSTER_ID, SECURITY, StorageSite
from tests.sim.violation import Violation

__all__ = ["LOGS", "FileBook", "UserMachine", "content_of", "new_client"]

LOGS = ("/log0", "/log1")
ABSENT = 0
RECORDS_PER_APPENDER = 6
APPENDERS_PER_MACHINE = 100_000


def content_of(number: int, size_bytes: int) -> bytes:
    return random.Random(f"content {number}").randbytes(size_bytes)


@dataclass(slots=True)
class Expected:
    """What a path may hold: numbers of contents, ``ABSENT`` for none."""

    contents: set[int] = field(default_factory=lambda: {ABSENT})
    is_busy: bool = False
    """An operation is under way."""
    changes: int = 0


class FileBook:
    """What all files must be, by what their writers were told."""

    def __init__(self) -> None:
        self.paths: dict[str, Expected] = {}
        self.sizes: dict[int, int] = {}
        self.logs = {path: AppendHistory() for path in LOGS}
        self._last_content = 0

    def new_content(self, size_bytes: int) -> int:
        self._last_content += 1
        self.sizes[self._last_content] = size_bytes
        return self._last_content

    def expected(self, path: str) -> Expected:
        return self.paths.setdefault(path, Expected())

    def check(self, path: str, content: bytes | None) -> None:
        """``content`` None: nothing is there."""
        allowed = self.paths[path].contents
        if content is None:
            if ABSENT not in allowed:
                raise Violation("file lost", f"{path} must hold one of {sorted(allowed)}")
            return
        if not any(
            number != ABSENT and content == content_of(number, self.sizes[number])
            for number in allowed
        ):
            raise Violation(
                "wrong bytes", f"{path} has {len(content)} bytes, none of {sorted(allowed)}"
            )


def new_client(site: StorageSite) -> MinigfsClient:
    """Of the process that runs now; nothing is shared with those of other processes."""
    client_module._shared_by_config.clear()
    return MinigfsClient(
        ClientConfig(
            masters=site.master_addresses,
            token=SECURITY.token,
            cluster_id=CLUSTER_ID,
            timeout_ms=site.options.timeout_ms,
        )
    )


class UserMachine:
    """One machine with a client process, which comes back as a new one when it is killed."""

    def __init__(self, site: StorageSite, book: FileBook, number: int, seed: str) -> None:
        self.site = site
        self.name = f"u{number}"
        self.book = book
        self._number = number
        self.chance = random.Random(seed)
        self.life: Life | None = None
        self.stopped = False
        self.busy = 0
        """Threads that have not come to their end."""
        self._files = 0
        self._appenders = 0
        self._pending: dict[object, Callable[[], None]] = {}  # what a crash leaves undecided

    def start(self) -> None:
        if self.life is not None or self.stopped:
            return
        self.site.trace.note(f"{self.name} start")
        self.site.wires.came_back(self.name)
        life = self.life = self.site.life(self.name)
        self.site.fibers.spawn(life, self._run, life, name="main")

    def crash(self) -> None:
        if self.life is None:
            return
        self.site.trace.note(f"{self.name} is killed")
        self.site.coverage["client crashes"] += 1
        self.life.alive = False
        self.life = None
        self.busy = 0
        pending, self._pending = self._pending, {}
        for undecided in pending.values():
            undecided()
        self.site.wires.died(self.name, power=False)
        self.site.scheduler.after(self.chance.choice((100, 1000)) * MS, self.start)

    def _run(self, life: Life) -> None:
        client = new_client(self.site)
        for action in (self._write_files, self._append_records, self._read_files):
            self.busy += 1
            self.site.fibers.spawn(life, self._until_stopped, action, client, name=action.__name__)

    def _until_stopped(
        self, action: Callable[[MinigfsClient], None], client: MinigfsClient
    ) -> None:
        while not self.stopped:
            self.site.fibers.sleep_us(1 + self.chance.randrange(2 * self.site.options.think_us))
            action(client)
        self.busy -= 1

    # Files

    def _write_files(self, client: MinigfsClient) -> None:
        own = [
            path
            for path, expected in self.book.paths.items()
            if path.startswith(f"/{self.name}")
            and len(expected.contents) == 1
            and ABSENT not in expected.contents
            and not expected.is_busy
        ]
        action = self.chance.choice(("create", "create", "create", "replace", "rename", "remove"))
        if action == "create" or not own:
            self._write(client, self._new_path())
        elif action == "replace":
            self._write(client, self.chance.choice(own))
        elif action == "rename":
            self._rename(client, self.chance.choice(own), self._new_path())
        else:
            self._remove(client, self.chance.choice(own))

    def _new_path(self) -> str:
        self._files += 1
        return f"/{self.name}-{self._files}"

    def _write(self, client: MinigfsClient, path: str) -> None:
        options, chance = self.site.options, self.chance
        size_bytes = chance.randrange(options.chunk_bytes * options.file_chunks_max)
        number = self.book.new_content(size_bytes)
        content = content_of(number, size_bytes)

        def work() -> None:
            with client.open_writer(path) as writer:
                position = 0
                while position < size_bytes:
                    length = chance.randrange(1, size_bytes + 1)
                    writer.write(content[position : position + length])
                    position += length
                    self.site.fibers.sleep_us(chance.randrange(20 * MS))

        self._change(f"write {path}", {path: number}, work)

    def _rename(self, client: MinigfsClient, source: str, target: str) -> None:
        (number,) = self.book.expected(source).contents
        self._change(
            f"rename {source} {target}",
            {source: ABSENT, target: number},
            lambda: client.rename(source, target),
        )

    def _remove(self, client: MinigfsClient, path: str) -> None:
        now = self.chance.random() < 0.7
        self._change(f"remove {path}", {path: ABSENT}, lambda: client.remove(path, now=now))

    def _change(self, what: str, after: dict[str, int], work: Callable[[], object]) -> None:
        """Do it, and note what the paths hold now, or may hold."""
        entries = {path: self.book.expected(path) for path in after}

        def undecided() -> None:
            for path, expected in entries.items():
                expected.contents = expected.contents | {after[path]}
                expected.is_busy = False
                expected.changes += 1

        for expected in entries.values():
            expected.is_busy = True
            expected.changes += 1
        self._pending[what] = undecided
        outcome = self._outcome(what, work)
        del self._pending[what]
        if outcome is None:
            for path, expected in entries.items():
                expected.contents = {after[path]}
            self.site.coverage["changes of files"] += 1
        elif isinstance(outcome, OutcomeUnknown):
            undecided()
        for expected in entries.values():
            expected.is_busy = False
            expected.changes += 1

    def _outcome(self, what: str, work: Callable[[], object]) -> MinigfsError | None:
        try:
            work()
        except (SecurityError, UsageError) as error:
            raise Violation("refused without reason", f"{self.name} {what}: {error}") from error
        except MinigfsError as error:
            self.site.trace.note(f"{self.name} {what}: {type(error).__name__}", error)
            self.site.coverage[type(error).__name__] += 1
            return error
        self.site.trace.note(f"{self.name} {what}: done")
        return None

    # Records

    def _append_records(self, client: MinigfsClient) -> None:
        path = self.chance.choice(LOGS)
        history = self.book.logs[path]
        self._appenders += 1
        appender_number = self._number * APPENDERS_PER_MACHINE + self._appenders
        numbers = iter(range(self.chance.randrange(1, 2 * RECORDS_PER_APPENDER)))

        def work() -> None:
            with client.open_appender(path) as appender:
                for number in numbers:
                    key = (appender_number, number)
                    length = self.chance.randrange(self.site.options.record_bytes_max)
                    self._pending[key] = lambda key=key: history.unknown.add(key)  # type: ignore[misc]
                    try:
                        offset = appender.append(make_record(*key, length))
                    except OutcomeUnknown:
                        history.unknown.add(key)
                        raise
                    except MinigfsError:
                        history.refused.add(key)
                        raise
                    finally:
                        self._pending.pop(key, None)
                    history.acknowledged[key] = offset
                    self.site.coverage["records appended"] += 1
                    self.site.fibers.sleep_us(self.chance.randrange(40 * MS))

        self._outcome(f"append to {path} as {appender_number}", work)

    # Reads

    def _read_files(self, client: MinigfsClient) -> None:
        settled = [p for p, expected in self.book.paths.items() if not expected.is_busy]
        if not settled:
            return
        path = self.chance.choice(settled)
        expected = self.book.paths[path]
        changes = expected.changes
        try:
            content: bytes | None = read_whole(client, path)
        except FileMissing:
            content = None
        except DamageError as error:
            self.site.trace.note(f"{self.name} read {path}: damaged", error)
            self.site.coverage["reads of damaged chunks"] += 1
            return
        except MinigfsError as error:
            self.site.coverage[f"{type(error).__name__} when reading"] += 1
            return
        if expected.changes == changes:
            self.book.check(path, content)
            self.site.coverage["reads"] += 1


def read_whole(client: MinigfsClient, path: str) -> bytes:
    with client.open_reader(path) as reader:
        return reader.read_at(0, reader.size_bytes)
