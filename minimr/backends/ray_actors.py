"""Workers as detached Ray actors; the only module that imports Ray.

An actor is a shell: it starts a `WorkerSupervisor` in its constructor, because a restart by Ray
(``max_restarts=-1``, after a kill or a crash) runs nothing else. Tasks never travel through Ray,
and neither do bytes: workers pull from the master (DESIGN 6.11) and shuffle among themselves.

Actors are made by a short-lived process (``python -m minimr.backends.ray_actors``), because a Ray
driver is heavy, and ends its process when Ray's head goes away. It imports Ray while the head is
still starting, and waits for a line on its standard input to go on.
"""

import importlib
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from minigfs.errors import MinigfsError, Unreachable
from minigfs.transport.security import Security, TlsFiles, load_token

if TYPE_CHECKING:
    from minimr.backends.worker import WorkerOptions, WorkerSupervisor

__all__ = [
    "HEAD_PORTS",
    "CreateWorkers",
    "WorkerSpec",
    "create_workers",
    "head_command",
    "main",
    "ray_environment",
]

_REGISTER_TIMEOUT_MS = 25_000
_RESTART_PAUSE_MS = 1_000  # between two starts of a worker that does not start


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What an actor needs to be a worker. It is kept by Ray, so the token is named, not held."""

    name: str  # of the actor; unique in the cluster
    directory: str
    listen: str
    masters: tuple[str, ...]
    token_file: str
    cluster_id: str
    host: str
    worker_count: int  # on the same machine
    rack: str = ""
    memory_bytes: int = 0  # of one executor at most; 0: what the job asks for
    tls: TlsFiles | None = None
    advertise: str = ""  # what others reach ``listen`` by
    metrics: str = ""  # where to serve figures for Prometheus; "" for nowhere

    def options(self) -> "WorkerOptions":
        from minimr.backends.executor import share_of_cores
        from minimr.backends.worker import WorkerOptions

        return WorkerOptions(
            directory=Path(self.directory),
            listen=self.listen,
            masters=self.masters,
            security=Security(load_token(self.token_file), self.cluster_id, self.tls),
            host=self.host,
            rack=self.rack,
            advertise=self.advertise,
            memory_bytes=self.memory_bytes,
            metrics=self.metrics,
            environment={
                "FSSPEC_MINIGFS_MASTERS": ",".join(self.masters),
                "FSSPEC_MINIGFS_TOKEN_FILE": self.token_file,
                "FSSPEC_MINIGFS_TLS_CA": self.tls.ca if self.tls is not None else "",
                **share_of_cores(self.worker_count),
            },
        )


class CreateWorkers(msgspec.Struct, frozen=True, kw_only=True):
    """The order that the short-lived process gets as its only argument, as JSON."""

    ray_address: str
    workers: tuple[WorkerSpec, ...]
    namespace: str = "minimr"
    ends: bool = False  # end these workers instead; who is not there is no error


def ray_environment(token_file: Path) -> dict[str, str]:
    """The environment of Ray's processes: ours without the user's Ray settings, and closed.

    Token authentication is on, usage statistics are off (no telemetry, DESIGN 8).
    """
    dropped = ("RAY_", "MINIGFS_READY_")  # the latter speaks to the process that `up` started
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return kept | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Without it Ray replaces 127.0.0.1 by this machine's outer address, and listens on all.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Ray's own remedy for a full memory is to kill workers, but the hogs are executors, which
        # are bounded and cost one attempt.
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_worker_niceness": "0",  # Ray would let workers run only when nothing else wants to
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning about GPUs
    }


def head_command(*, ports: Mapping[str, int], temporary: Path) -> list[str]:
    """``ray start`` for a head of our own on loopback, with nothing that we do not use.

    ``ports`` are Ray's options by name. Workers' ports are left to the kernel: they too are bound
    to loopback, and any number of workers may come.
    """
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head"),
        "--node-ip-address=127.0.0.1",
        *(f"--{option}={port}" for option, port in ports.items()),
        "--min-worker-port=0",
        "--max-worker-port=0",
        "--include-dashboard=false",
        "--include-log-monitor=false",
        "--no-monitor",  # of the autoscaler
        "--disable-usage-stats",
        "--num-cpus=1",  # Ray starts this many idle workers; ours ask for no CPU
        "--object-store-memory=80000000",  # about the least it takes; no data passes through it
        f"--temp-dir={temporary}",
    ]


HEAD_PORTS: Sequence[str] = (
    "port",
    "node-manager-port",
    "object-manager-port",
    "runtime-env-agent-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
)
"""The options of `head_command` that take a port."""


class WorkerActor:
    """The shell in the actor's process. Restarted by Ray, it finds its name and segments again."""

    def __init__(self, spec_json: bytes) -> None:
        import ray

        try:
            self._supervisor = self._start(msgspec.json.decode(spec_json, type=WorkerSpec))
        except Exception:  # whatever a disk or a network may do to a start
            if not ray.get_runtime_context().was_current_actor_reconstructed:
                raise  # to whoever created it
            # Ray never restarts an actor whose constructor raised, but does one whose process died.
            logging.getLogger(__name__).exception("the worker does not start; trying again")
            time.sleep(_RESTART_PAUSE_MS / 1000)
            os._exit(1)

    def _start(self, spec: WorkerSpec) -> "WorkerSupervisor":
        from minimr.backends.worker import WorkerSupervisor

        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        os.environ.pop("PYTHONBREAKPOINT", None)  # Ray's debugger has no business in user code
        supervisor = WorkerSupervisor(spec.options())
        supervisor.start()
        return supervisor

    def wait_registered(self, timeout_ms: int) -> bool:
        return self._supervisor.wait_registered(timeout_ms)

    def __ray_shutdown__(self) -> None:
        """Ray's name for what it calls when an actor is asked, not forced, to end."""
        self._supervisor.stop()


def end_actors(order: CreateWorkers) -> None:
    """End the workers of an order in a Ray that goes on without them."""
    import ray

    ray.init(
        address=order.ray_address,
        namespace=order.namespace,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=False,
    )
    try:
        for spec in order.workers:
            with suppress(ValueError):  # it is not there
                ray.kill(ray.get_actor(spec.name), no_restart=True)
    finally:
        ray.shutdown()


def create_workers(order: CreateWorkers) -> None:
    """Make the actors that are missing and wait until a master knows each.

    `Unreachable` if Ray or the master cannot be reached in time.
    """
    import ray

    ray.init(
        address=order.ray_address,
        namespace=order.namespace,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=False,
    )
    try:
        remote: Any = ray.remote(WorkerActor)
        actors = [
            remote.options(
                name=spec.name,
                get_if_exists=True,
                lifetime="detached",
                max_restarts=-1,
                num_cpus=0,
            ).remote(msgspec.json.encode(spec))
            for spec in order.workers
        ]
        waiting = [actor.wait_registered.remote(_REGISTER_TIMEOUT_MS) for actor in actors]
        known = ray.get(waiting)
    except ray.exceptions.RayError as error:
        cause = str(error).strip().splitlines()[-1]
        raise Unreachable(f"Ray could not start the workers: {cause}") from error
    finally:
        ray.shutdown()
    unknown = [s.name for s, is_known in zip(order.workers, known, strict=True) if not is_known]
    if unknown:
        raise Unreachable(
            f"no master at {', '.join(order.workers[0].masters)} has answered "
            f"{', '.join(unknown)} in {_REGISTER_TIMEOUT_MS // 1000} s"
        )


def main(arguments: Sequence[str]) -> int:
    """Create workers as ordered, after a line on standard input; errors go to stderr in one line.

    Without the line, because whoever ordered it ended, nothing is done.
    """
    order = msgspec.json.decode(arguments[0], type=CreateWorkers)
    import ray  # noqa: F401  (takes its time while the head starts)

    if not sys.stdin.readline():
        return 1
    try:
        (end_actors if order.ends else create_workers)(order)
    except (MinigfsError, ConnectionError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    # Actors find their class by the name this module is imported by, which is not __main__.
    sys.exit(importlib.import_module("minimr.backends.ray_actors").main(sys.argv[1:]))
