"""Three real masters and a chunkserver below one directory; links between the masters can be cut.

Each master advertises the front of a ``LinkProxy``, so all that others say to it passes there. The
masters are started by the command a user has, and killed, paused and restarted by process id.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from minigfs.client.client import MinigfsClient
from minigfs.client.config import ClientConfig
from minigfs.errors import ClusterError, MinigfsError
from minigfs.master.messages import GetClusterReport, MasterReport
from minigfs.ports import SystemRng
from minigfs.raft import NodeId
from minigfs.replication.admin import TransferLeadership
from minigfs.replication.founding import found_group
from minigfs.transport.client import ConnectionPool
from minigfs.transport.messages import ReplyT, Request
from minigfs.transport.security import Security, create_token, load_token
from tests.addresses import free_address
from tests.link_proxy import LinkProxy
from tests.stopping import stop

__all__ = ["MasterGroup", "MasterHandle"]

CLUSTER_ID = "test-group"
PATIENCE_S = 20.0
_ASK_MS = 500
_POLL_S = 0.02


@dataclass(slots=True)
class MasterHandle:
    """One master, running or not."""

    name: str
    directory: Path
    address: str
    """Where it really listens."""
    front: str
    """Where all others reach it."""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)


class MasterGroup:
    """Runs while its ``with`` block does. Its clients come through the fronts, as all others do."""

    def __init__(
        self,
        root: Path,
        *,
        masters: int = 3,
        timeout_ms: int = 10_000,
        program: str = "minigfs",
        directories: Mapping[str, Path] | None = None,
    ) -> None:
        """``program`` is what serves: "minimr" hosts the coordinator, too. ``directories`` says
        where masters live that do not live below ``root``; they are called a, b, c."""
        self.root = root
        self.links = LinkProxy()
        self._program = program
        self._directories = directories or {}
        self._timeout_ms = timeout_ms
        self._count = masters
        self.masters: dict[str, MasterHandle] = {}
        self._chunkserver: subprocess.Popen[bytes] | None = None

    @property
    def token_file(self) -> Path:
        return self.root / "token"

    @property
    def config(self) -> ClientConfig:
        return ClientConfig(
            masters=tuple(master.front for master in self.masters.values()),
            token=load_token(self.token_file),
            cluster_id=CLUSTER_ID,
            timeout_ms=self._timeout_ms,
        )

    def __enter__(self) -> Self:
        self.root.mkdir(parents=True, exist_ok=True)
        create_token(self.token_file)
        self.links.__enter__()
        try:
            self._found()
            self.start_missing()
            self._start_chunkserver()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    # What is done to masters

    def start(self, name: str) -> None:
        """Start a master that does not run. It may still be at its start when this returns."""
        master = self.masters[name]
        assert master.process is None, f"master {name} runs"
        master.process = self._spawn(
            f"master-{name}",
            *(self._program, "serve", "master"),
            *("--dir", str(master.directory), "--listen", master.address, "--founded"),
            *("--advertise", master.front, "--chunk-size", "1MiB", "--replication", "1"),
        )
        self.links.serve(name, master.address, master.process.pid)

    def start_missing(self) -> None:
        """Start what does not run; return when all answer and one leads."""
        for name in [name for name in self.masters if name not in self._running()]:
            self.start(name)
        for name in self.masters:
            self.wait_for_answer(name)
        self.wait_for_leader()

    def kill(self, name: str) -> None:
        """``kill -9``"""
        master = self.masters[name]
        assert master.process is not None, f"master {name} does not run"
        master.process.kill()
        master.process.wait()
        master.process = None

    def wait_until_ended(self, name: str) -> str:
        """Return when the master has ended by itself; with the last line of its log."""
        master = self.masters[name]
        assert master.process is not None, f"master {name} does not run"
        try:
            assert master.process.wait(PATIENCE_S) != 0, "it ended as if all were well"
        except subprocess.TimeoutExpired:
            raise AssertionError(f"master {name} goes on:\n{self.log(name)}") from None
        master.process = None
        return self.log(name).strip().splitlines()[-1]

    def ask_to_stop(self, name: str) -> None:
        """SIGTERM, as ``down`` does; return when it has ended."""
        master = self.masters[name]
        assert master.process is not None, f"master {name} does not run"
        master.process.terminate()
        assert master.process.wait(PATIENCE_S) == 0, self.log(name)
        master.process = None

    def hand_over_to(self, name: str) -> None:
        """Return when that master took over; it may lead no more since."""
        report = self.report_of(name)
        assert report is not None
        deadline = time.monotonic() + PATIENCE_S
        while (leader := self.wait_for_leader()) != name:
            assert time.monotonic() < deadline, f"{name} does not take over:\n{self.log(name)}"
            with suppress(ClusterError):  # it is not caught up yet, or leads no more
                self.ask(leader, TransferLeadership(member_id=NodeId(report.id)))
                return

    def pause(self, name: str) -> None:
        stop(self._process(name))

    def resume(self, name: str) -> None:
        self._process(name).send_signal(signal.SIGCONT)

    def others(self, name: str) -> list[str]:
        return [other for other in self.masters if other != name]

    # What is known of masters

    def log(self, name: str) -> str:
        """What the master wrote to its log file."""
        return (self.root / f"master-{name}.log").read_text()

    def ask(self, name: str, request: Request[ReplyT]) -> ReplyT:
        """The answer of this master and no other, at once or not at all."""
        pool = ConnectionPool(Security(load_token(self.token_file), CLUSTER_ID))
        try:
            return pool.call(self.masters[name].address, request, timeout_ms=_ASK_MS)
        finally:
            pool.close()

    def report_of(self, name: str) -> MasterReport | None:
        """What a master says of itself; None if it does not answer."""
        try:
            report = self.ask(name, GetClusterReport(stale_ok=True))
        except MinigfsError:
            return None
        front = self.masters[name].front
        return next((each for each in report.masters if each.address == front), None)

    def wait_for_leader(self, among: list[str] | None = None) -> str:
        """The name of the leader of the highest term, once one of ``among`` (all) says it leads."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            reports = {name: self.report_of(name) for name in among or self._running()}
            leading = [
                (report.term, name)
                for name, report in reports.items()
                if report is not None and report.role == "leader"
            ]
            if leading:
                return max(leading)[1]
            for name in self._running():
                process = self.masters[name].process
                assert process is not None
                assert process.poll() is None, f"master {name} ended:\n{self.log(name)}"
            assert time.monotonic() < deadline, f"nobody leads: {reports}"
            time.sleep(_POLL_S)

    def wait_for_answer(self, name: str) -> None:
        """Return when the master answers, so that it counts again for a majority."""
        deadline = time.monotonic() + PATIENCE_S
        while self.report_of(name) is None:
            assert time.monotonic() < deadline, f"master {name} is silent:\n{self.log(name)}"
            time.sleep(_POLL_S)

    def _running(self) -> list[str]:
        return [name for name, master in self.masters.items() if master.process is not None]

    # Start and end

    def _found(self) -> None:
        for number in range(self._count):
            name = chr(ord("a") + number)
            self.masters[name] = MasterHandle(
                name=name,
                directory=self._directories.get(name, self.root / f"master-{name}"),
                address=free_address(),
                front=self.links.add_front(name),
            )
        places = [(master.directory, master.front) for master in self.masters.values()]
        found_group(places, SystemRng())

    def _start_chunkserver(self) -> None:
        joined = [part for master in self.masters.values() for part in ("--join", master.front)]
        self._chunkserver = self._spawn(
            "chunkserver",
            *("minigfs", "serve", "chunkserver"),
            *("--dir", str(self.root / "chunkserver"), "--listen", "127.0.0.1:0"),
            *joined,
        )
        client = MinigfsClient(self.config)
        deadline = time.monotonic() + PATIENCE_S
        while not any(server.alive for server in client.report().chunkservers):
            assert time.monotonic() < deadline, "the chunkserver did not register in time"
            time.sleep(_POLL_S)

    def _spawn(self, name: str, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        told = ("--cluster-id", CLUSTER_ID, "--token-file", str(self.token_file))
        with (self.root / f"{name}.log").open("ab") as log_file:
            return subprocess.Popen(
                [sys.executable, "-m", program, *arguments, *told],
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                cwd=Path(__file__).parent.parent,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def _process(self, name: str) -> "subprocess.Popen[bytes]":
        process = self.masters[name].process
        assert process is not None, f"master {name} does not run"
        return process

    def _end(self) -> None:
        for name in self._running():
            self.kill(name)
        if self._chunkserver is not None:
            self._chunkserver.kill()
            self._chunkserver.wait()
        self.links.__exit__(None, None, None)
