"""One seed's storage cluster: masters, chunkservers, clients, and their bad luck.

The storm: clients write, append, read, rename and remove while mishaps strike. The calm: all is
healed but damaged media; the clients come to their end; then the cluster must become whole by
itself, and a client that knows nothing must find every byte that was ever acknowledged.
"""

import gc
import traceback
from collections.abc import Callable, Collection
from typing import IO, Any

from minigfs.errors import FileMissing
from minigfs.ids import ChunkHandle
from tests.sim.coverage import StorageCoverage
from tests.sim.scheduler import MS, SECOND, Scheduler
from tests.sim.storage.fibers import Fiber, Fibers, Life, where
from tests.sim.storage.masters import MasterGroup, MasterMachine
from tests.sim.storage.mishaps import Mishaps
from tests.sim.storage.options import StorageOptions
from tests.sim.storage.outcome import check_deletion, check_replicas, unsettled
from tests.sim.storage.production import EPOCH_MS, on_fibers
from tests.sim.storage.servers import ServerMachine, StorageSite, chunkserver_names
from tests.sim.storage.users import FileBook, UserMachine, new_client, read_whole
from tests.sim.storage.wires import Wires
from tests.sim.trace import Trace
from tests.sim.violation import Violation
from tests.sim.world import Result

__all__ = ["StorageWorld"]

START_US = 500 * MS
USERS_END_US = 120 * SECOND
SETTLE_US = 240 * SECOND
READ_US = 120 * SECOND


class StorageWorld:
    """``run`` it once."""

    def __init__(
        self,
        seed: int,
        options: StorageOptions,
        *,
        without: Collection[int] = (),
        trace_file: IO[str] | None = None,
    ) -> None:
        self.seed = seed
        self.options = options
        self._without = without
        self.scheduler = Scheduler()
        self.trace = Trace(self.scheduler, trace_file)
        self.coverage = StorageCoverage()
        self._violation: Violation | None = None
        self.fibers = Fibers(self.scheduler, f"fibers {seed}", self._thread_failed)
        wires = Wires(self.fibers, f"wires {seed}", options.delay_us_max)
        names = [f"m{number}" for number in range(options.masters)]
        self.site = StorageSite(
            scheduler=self.scheduler,
            options=options,
            trace=self.trace,
            coverage=self.coverage,
            fibers=self.fibers,
            wires=wires,
            masters=tuple(f"{name}:7000" for name in names),
        )
        self.site.deleting = self._deleting
        self.group = MasterGroup(self.site, f"group {seed}", self._task_failed)
        self.group.machines += [
            MasterMachine(self.site, self.group, name, f"{name} {seed}") for name in names
        ]
        self.servers = [
            ServerMachine(self.site, f"c{number}", f"c{number} {seed}")
            for number in range(options.servers)
        ]
        self.book = FileBook()
        self.users = [
            UserMachine(self.site, self.book, number, f"u{number} {seed}")
            for number in range(options.clients)
        ]
        self._mishaps: Mishaps | None = None
        self._look_us = 0
        self._calm_since_ms = 0

    # What nobody expects

    def _thread_failed(self, fiber: Fiber, error: BaseException) -> None:
        if isinstance(error, Violation):
            self._violation = self._violation or error
            return
        at = where(error)
        name = fiber.life.name
        self._violate(f"{type(error).__name__} in {at}", f"thread {fiber.name} of {name}: {error}")

    def _task_failed(self, life: Life, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is None or not life.alive:
            return
        self._violate(f"{type(error).__name__} in {where(error)}", f"{life.name}: {context}")

    def _violate(self, kind: str, text: str) -> None:
        self._violation = self._violation or Violation(kind, text)

    def _deleting(self, server: str, handle: ChunkHandle) -> None:
        self.coverage["chunks deleted"] += 1
        check_deletion(self.group.state(), self.servers, server, handle)

    # Its story

    def run(self) -> Result:
        violation: Violation | None = None
        gc.collect()  # the world before this one, which is tied to itself: whole disks
        collects = gc.isenabled()
        gc.disable()  # what it ends must not depend on what ran before
        try:
            with on_fibers(self.fibers, f"production {self.seed}", chunkserver_names()):
                try:
                    self._storm()
                    self._calm()
                except Violation as found:
                    violation = found
                except Exception as found:  # of a check, or of the simulator: other seeds go on
                    at = traceback.extract_tb(found.__traceback__)[-1]
                    violation = Violation(
                        f"{type(found).__name__} in {at.name}",
                        f"{at.filename}:{at.lineno}: {found}",
                    )
                digest = self.trace.digest
                last_lines = tuple(self.trace.last_lines())
                self.fibers.close()
        finally:
            if collects:
                gc.enable()
        return Result(
            seed=self.seed,
            violation=violation,
            digest=digest,
            coverage=self.coverage,
            struck=tuple(self._mishaps.struck) if self._mishaps else (),
            last_lines=last_lines,
        )

    def _run_until(self, condition: Callable[[], bool], within_us: int) -> bool:
        until_us = self.scheduler.now_us + within_us
        while not condition():
            if self.scheduler.now_us > until_us or not self.scheduler.step():
                return False
            if self._violation is not None:
                raise self._violation
        return True

    def _storm(self) -> None:
        for machine in self.group.machines:
            machine.start()
        for server in self.servers:
            server.start()
        self._run_until(lambda: False, START_US)
        self.group.elect()
        for user in self.users:
            user.start()
        self._mishaps = Mishaps(
            self.site, self.group, self.servers, self.users, self.seed, self._without
        )
        self._run_until(lambda: False, self.options.storm_us)

    def _calm(self) -> None:
        assert self._mishaps is not None
        self.trace.note("calm")
        self._mishaps.stop()
        self.group.ensure_leader()
        for user in self.users:
            user.stopped = True
        if not self._run_until(lambda: not any(user.busy for user in self.users), USERS_END_US):
            raise Violation("clients never end", str([user.busy for user in self.users]))
        for user in self.users:
            user.crash()
        self._calm_since_ms = EPOCH_MS + self.scheduler.now_us // MS
        if not self._run_until(self._is_settled, SETTLE_US):
            raise Violation("not whole again", self._unsettled())
        check_replicas(self.group.state(), self.servers)
        self._read_everything()
        if missing := self.coverage.missing():
            raise Violation("not provoked", f"{missing}")

    def _is_settled(self) -> bool:
        if self.scheduler.now_us < self._look_us:
            return False
        self._look_us = self.scheduler.now_us + 200 * MS
        return not self._unsettled()

    def _unsettled(self) -> str:
        return unsettled(self.group.state(), self.servers, self._calm_since_ms)

    def _read_everything(self) -> None:
        ended: list[bool] = []

        def read() -> None:
            client = new_client(self.site)
            for path in sorted(self.book.paths):
                try:
                    content: bytes | None = read_whole(client, path)
                except FileMissing:
                    content = None
                self.book.check(path, content)
            for path, history in self.book.logs.items():
                try:
                    content = read_whole(client, path)
                except FileMissing:
                    content = b""
                try:
                    history.check(content or b"")
                except AssertionError as error:
                    raise Violation("append history", f"{path}: {error}") from error
            ended.append(True)

        self.fibers.spawn(self.site.life("judge"), read, name="judge")
        if not self._run_until(lambda: bool(ended), READ_US):
            raise Violation("unreadable", "the last reader never comes to its end")
