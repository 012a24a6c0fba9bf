"""A real master and real workers as plain processes, without Ray: what worker tests stand on.

Input and output lie on local disk, so no chunkservers are needed.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from minigfs.closing import ClosedOnExit
from minigfs.cluster.storage import free_loopback_ports
from minigfs.dump import dump_log
from minigfs.errors import ClusterError
from minigfs.transport.security import Security, create_token
from minimr.backends.master_link import MasterLink
from minimr.messages import (
    GetJob,
    JobSpec,
    JobStatus,
    ListWorkers,
    SubmitJob,
    WorkerReport,
)

__all__ = ["HangingStart", "Hold", "WorkerCluster"]

CLUSTER_ID = "worker-tests"
PATIENCE_NS = 30_000_000_000

WORKER_PROGRAM = """
import json, logging, signal, sys
from pathlib import Path
from minigfs.transport.security import Security, load_token
from minimr.backends.worker import WorkerOptions, WorkerSupervisor
told = json.loads(sys.argv[1])
logging.basicConfig(level=logging.INFO)
worker = WorkerSupervisor(WorkerOptions(
    directory=Path(told["directory"]), listen="127.0.0.1:0", masters=(told["master"],),
    security=Security(load_token(told["token_file"]), told["cluster_id"]), host=told["host"],
    advertise=told["advertise"], environment=told["environment"]))
worker.start()
print("started", flush=True)
signal.pause()
"""


class Hold(ClosedOnExit):
    """Until ``close``, processes wait in ``flock(file, LOCK_SH)``; none of them has to poll."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = file.open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        self._lock.close()


class HangingStart(Hold):
    """Executors with this environment hang while their interpreter starts, until ``close``."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        super().__init__(directory / "hold")
        self.environment = {"PYTHONPATH": str(directory)}
        (directory / "sitecustomize.py").write_text(
            f"import fcntl\nwith open({str(self.file)!r}) as hold:\n"
            "    fcntl.flock(hold, fcntl.LOCK_SH)\n"
        )


@dataclass
class WorkerCluster:
    directory: Path
    workers: dict[int, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    master: "subprocess.Popen[bytes] | None" = None

    def __enter__(self) -> Self:
        self.directory.mkdir()
        self.token_file = self.directory / "token"
        self.security = Security(create_token(self.token_file), CLUSTER_ID)
        self.master_address = f"127.0.0.1:{free_loopback_ports(1)[0]}"
        self.link = MasterLink((self.master_address,), self.security)
        self.start_master()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number in list(self.workers):
            self.kill_worker(number)
        self.kill_master()
        self.link.close()

    def start_master(self) -> None:
        with (self.directory / "master.log").open("ab") as log:
            self.master = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "minimr", "serve", "master"),
                    f"--dir={self.directory / 'master'}",
                    f"--listen={self.master_address}",
                    f"--cluster-id={CLUSTER_ID}",
                    f"--token-file={self.token_file}",
                ],
                stderr=log,
            )
        self.until(lambda: self.worker_reports() is not None, "the master does not answer")

    def kill_master(self) -> None:
        if self.master is not None:
            self.master.kill()
            self.master.wait()

    def start_worker(
        self, number: int, *, host: str = "here", advertise: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """``environment`` is that of its executors."""
        told = {
            "directory": str(self.directory / f"worker-{number}"),
            "master": self.master_address,
            "token_file": str(self.token_file),
            "cluster_id": CLUSTER_ID,
            "host": host,
            "advertise": advertise,
            "environment": dict(environment or {}),
        }
        Path(told["directory"]).mkdir(exist_ok=True)
        with (self.directory / f"worker-{number}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", WORKER_PROGRAM, json.dumps(told)],
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self.workers[number] = process
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n", (log.name, Path(log.name).read_text())
        self.until(
            lambda: process.pid in [w.pid for w in self.alive_workers()], "the worker is not known"
        )

    def kill_worker(self, number: int) -> None:
        process = self.workers.pop(number)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()

    def worker_reports(self) -> tuple[WorkerReport, ...] | None:
        try:
            return self.link.call(ListWorkers(), timeout_ms=1_000).workers
        except ClusterError:
            return None

    def alive_workers(self) -> list[WorkerReport]:
        return [worker for worker in self.worker_reports() or () if worker.alive]

    def submit(self, spec: JobSpec) -> JobStatus:
        return self.link.call(SubmitJob(spec=spec))

    def status(self, spec: JobSpec) -> JobStatus:
        return self.link.call(GetJob(job_id=spec.job_id))

    def wait(self, spec: JobSpec) -> JobStatus:
        deadline_ns = time.monotonic_ns() + PATIENCE_NS
        version = -1
        while True:
            assert time.monotonic_ns() < deadline_ns, f"{spec.job_id} does not end: {self.logs()}"
            try:
                request = GetJob(job_id=spec.job_id, known_version=version, wait_ms=1_000)
                status = self.link.call(request)
            except ClusterError:
                continue
            if status.state.is_final:
                return status
            version = status.version

    def logged(self, kind: str) -> list[dict[str, Any]]:
        """The commands of a kind in the master's log, such as "end-attempts"."""
        commands = [
            entry["command"]
            for segment in sorted((self.directory / "master").rglob("*.wal"))
            for row in dump_log(segment)
            for entry in row.get("entries", ())
            if "command" in entry
        ]
        return [one for one in commands if isinstance(one, dict) and one.get("type") == kind]

    def until(self, condition, complaint: str) -> None:  # type: ignore[no-untyped-def]
        deadline_ns = time.monotonic_ns() + PATIENCE_NS
        while not condition():
            assert time.monotonic_ns() < deadline_ns, f"{complaint}: {self.logs()}"
            time.sleep(0.02)

    def logs(self) -> str:
        return "\n".join(
            f"--- {log.name}\n{log.read_text()[-3000:]}" for log in self.directory.glob("*.log")
        )
