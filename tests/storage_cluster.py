"""A small real storage cluster for tests: one master and some chunkservers, each a process.

Everything listens on loopback at a port that the first start picked and later starts keep, with a
token of its own, below one directory. Processes are killed, never asked: that is how they must be
able to die. ``MINIMR_HOME`` style discovery works through ``home`` (``client.json`` is written).

    with StorageCluster(tmp_path, chunk_bytes=64 * 1024) as cluster:
        cluster.client.open_writer("/a") ...
        cluster.kill_chunkserver(0)

With ``links`` every process advertises the front of a ``LinkProxy``, so that a chunkserver can be
cut off from the master and from its peers while clients still reach it.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from minigfs.client.client import MinigfsClient
from minigfs.client.config import ClientConfig
from minigfs.transport.security import create_token, load_token
from tests.addresses import free_address
from tests.link_proxy import LinkProxy
from tests.stopping import stop

__all__ = ["ChunkserverHandle", "StorageCluster"]

CLUSTER_ID = "test-cluster"
START_SECONDS_MAX = 20.0

MASTER_PROGRAM = """
import asyncio, json, sys
from pathlib import Path
from minigfs.config import FileSystemConfig
from minigfs.master.process import FileSystemService, MasterOptions, serve_master
from minigfs.ports import SystemClock, SystemRng
from minigfs.transport.security import Security, load_token
told = json.loads(sys.argv[1])
if told["crashes"]:
    from minigfs.replication import founding
    from tests.crashing_disk import CrashingDisk
    founding.RealDisk = CrashingDisk
config = FileSystemConfig(
    cluster_id=told["cluster_id"], chunk_bytes=told["chunk_bytes"], replication=told["replication"]
)
options = MasterOptions(
    directory=Path(told["directory"]),
    listen=told["listen"],
    advertise=told["advertise"],
    security=Security(load_token(told["token_file"]), told["cluster_id"]),
    config=config,
)
if not told["repairs"]:
    from minigfs.master.repair import Repairs
    Repairs.orders_for = lambda *_: ()
service = FileSystemService(config, options, SystemClock(), SystemRng())
asyncio.run(serve_master(options, [service], ready=lambda bound: print(bound, flush=True)))
"""

CHUNKSERVER_PROGRAM = """
import json, logging, resource, sys
from pathlib import Path
from minigfs.chunkserver.process import ChunkserverOptions, serve_chunkserver
from minigfs.transport.security import Security, load_token
told = json.loads(sys.argv[1])
if told["crashes"]:
    from minigfs.chunkserver import process
    from tests.crashing_disk import CrashingDisk
    process.RealDisk = CrashingDisk
logging.basicConfig(level=logging.INFO)
if told["file_bytes_max"]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (told["file_bytes_max"],) * 2)
serve_chunkserver(
    ChunkserverOptions(
        directory=Path(told["directory"]),
        listen=told["listen"],
        advertise=told["advertise"],
        masters=(told["master"],),
        security=Security(load_token(told["token_file"]), told["cluster_id"]),
        host=told["host"],
    ),
    ready=lambda bound: print(bound, flush=True),
)
"""


@dataclass(slots=True)
class ChunkserverHandle:
    """One chunkserver of the cluster, running or not."""

    directory: Path
    host: str
    listen: str = field(default_factory=free_address)
    address: str = ""
    """Where others reach it."""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def chunk_files(self) -> list[Path]:
        """Files of the sealed chunks, by handle."""
        return sorted((self.directory / "chunks").glob("*.chunk"))


class StorageCluster:
    """Starts with its ``with`` block; ``client`` talks to it."""

    def __init__(
        self,
        root: Path,
        *,
        chunk_bytes: int = 64 * 1024 * 1024,
        chunkservers: int = 3,
        replication: int = 3,
        timeout_ms: int = 10_000,
        file_bytes_max: int = 0,
        lends: bool = True,
        repairs: bool = True,
        links: bool = False,
        crashes: bool = False,
    ) -> None:
        """``file_bytes_max`` limits every file of the chunkservers (RLIMIT_FSIZE); 0: no limit.
        Without ``lends`` their directories are too deep for Unix sockets: all reads use TCP.
        Without ``repairs`` what is damaged stays so, for a test to look at. With ``links`` there
        is a ``LinkProxy`` between all processes, and nothing is lent. With ``crashes`` all disks
        are ``CrashingDisk``, to be armed."""
        self.root = root
        self.links = LinkProxy() if links else None
        self.chunk_bytes = chunk_bytes
        self.replication = replication
        self.master_address = ""  # where others reach it
        self._master_listen = free_address()
        self.master_process: subprocess.Popen[bytes] | None = None
        self.chunkservers = [
            ChunkserverHandle(
                directory=(root if lends and not links else root / ("deep" * 27))
                / f"chunkserver-{n}",
                host=f"host-{n}",
            )
            for n in range(chunkservers)
        ]
        self.home = root
        self.token_file = root / "token"
        self._timeout_ms = timeout_ms
        self._file_bytes_max = file_bytes_max
        self._repairs = repairs
        self._crashes = crashes

    @property
    def config(self) -> ClientConfig:
        return ClientConfig(
            masters=(self.master_address,),
            token=load_token(self.token_file),
            cluster_id=CLUSTER_ID,
            timeout_ms=self._timeout_ms,
        )

    @property
    def client(self) -> MinigfsClient:
        return MinigfsClient(self.config)

    def __enter__(self) -> Self:
        self.root.mkdir(parents=True, exist_ok=True)
        if not self.token_file.exists():
            create_token(self.token_file)
        if self.links is not None:
            self.links.__enter__()
            self.master_address = self.links.add_front("master")
            for server in self.chunkservers:
                server.address = self.links.add_front(server.host)
        try:
            self.start()
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

    def _end(self) -> None:
        self.kill_everything()
        if self.links is not None:
            self.links.__exit__(None, None, None)

    def start(self) -> None:
        """Start whatever does not run, and wait until the master counts every chunkserver."""
        if self.master_process is None:
            self.start_master()
        missing = [n for n, server in enumerate(self.chunkservers) if server.process is None]
        for number in missing:
            self._spawn_chunkserver(number)
        for number in missing:
            self._learn_address(number)
        self.wait_for_chunkservers(len(self.chunkservers))

    def start_master(self) -> None:
        directory = self.root / "master"
        told = {
            "cluster_id": CLUSTER_ID,
            "chunk_bytes": self.chunk_bytes,
            "replication": self.replication,
            "directory": str(directory),
            "listen": self._master_listen,
            "advertise": None if self.links is None else self.master_address,
            "token_file": str(self.token_file),
            "crashes": self._crashes,
            "repairs": self._repairs,
        }
        log = self.root / "master.log"
        self.master_process = process = _spawn(MASTER_PROGRAM, told, log)
        self._link("master", self._master_listen, process)
        self._master_listen = _bound_address(process, log)
        self._link("master", self._master_listen, process)
        if self.links is None:
            self.master_address = self._master_listen
        client_file = {
            "cluster_id": CLUSTER_ID,
            "masters": [self.master_address],
            "token_file": str(self.token_file),
        }
        (self.home / "client.json").write_text(json.dumps(client_file))

    def start_chunkserver(self, number: int) -> None:
        self._spawn_chunkserver(number)
        self._learn_address(number)

    def kill_chunkserver(self, number: int) -> None:
        server = self.chunkservers[number]
        _kill(server.process)
        server.process = None

    def kill_master(self) -> None:
        _kill(self.master_process)
        self.master_process = None

    def pause_chunkserver(self, number: int) -> None:
        stop(_running(self.chunkservers[number].process))

    def resume_chunkserver(self, number: int) -> None:
        _running(self.chunkservers[number].process).send_signal(signal.SIGCONT)

    def fill_disk(self, number: int, file_bytes_max: int = 4096) -> None:
        """No file of a chunkserver can grow beyond so many bytes, until ``free_disk``."""
        self._limit_files(number, file_bytes_max)

    def free_disk(self, number: int) -> None:
        self._limit_files(number, resource.RLIM_INFINITY)

    def _limit_files(self, number: int, bytes_max: int) -> None:
        pid = _running(self.chunkservers[number].process).pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (bytes_max, hard))

    def isolate_chunkserver(self, number: int) -> None:
        """Clients reach it as before; the master and the other chunkservers do not."""
        assert self.links is not None
        self.links.isolate(self.chunkservers[number].host)

    def kill_everything(self) -> None:
        self.kill_master()
        for number in range(len(self.chunkservers)):
            self.kill_chunkserver(number)

    def wait_for_chunkservers(self, count: int) -> None:
        """Return when the master has heard of that many live chunkservers."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while sum(server.alive for server in self.client.report().chunkservers) < count:
            assert time.monotonic() < deadline, "the chunkservers did not register in time"
            time.sleep(0.01)

    def number_of(self, address: str) -> int:
        """Which chunkserver listens at an address."""
        return [server.address for server in self.chunkservers].index(address)

    def _spawn_chunkserver(self, number: int) -> None:
        server = self.chunkservers[number]
        told = {
            "cluster_id": CLUSTER_ID,
            "directory": str(server.directory),
            "listen": server.listen,
            "advertise": "" if self.links is None else server.address,
            "master": self.master_address,
            "token_file": str(self.token_file),
            "host": server.host,
            "crashes": self._crashes,
            "file_bytes_max": self._file_bytes_max,
        }
        server.process = _spawn(CHUNKSERVER_PROGRAM, told, self.root / f"chunkserver-{number}.log")
        self._link(server.host, server.listen, server.process)

    def _learn_address(self, number: int) -> None:
        server = self.chunkservers[number]
        assert server.process is not None
        server.listen = _bound_address(server.process, self.root / f"chunkserver-{number}.log")
        self._link(server.host, server.listen, server.process)
        if self.links is None:
            server.address = server.listen

    def _link(self, name: str, listens: str, process: subprocess.Popen[bytes]) -> None:
        """Told twice at a first start: a process may connect before its own address is known."""
        if self.links is not None:
            self.links.serve(name, listens, process.pid)


def _spawn(program: str, told: dict[str, object], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as log_file:
        return subprocess.Popen(
            [sys.executable, "-c", program, json.dumps(told)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log_file,
            cwd=Path(__file__).parent.parent,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )


def _bound_address(process: subprocess.Popen[bytes], log: Path) -> str:
    """What a process prints once it serves."""
    assert process.stdout is not None
    line = process.stdout.readline().decode().strip()
    process.stdout.close()
    assert line, f"the process ended at its start:\n{log.read_text()}"
    return line


def _running(process: subprocess.Popen[bytes] | None) -> subprocess.Popen[bytes]:
    assert process is not None, "it does not run"
    return process


def _kill(process: subprocess.Popen[bytes] | None) -> None:
    if process is None:
        return
    process.send_signal(signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
