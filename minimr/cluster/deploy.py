"""`minimr up`, `down` and `status`: a whole cluster of processes on this machine.

`minigfs.cluster` keeps, starts and stops the processes; this adds what minimr needs beyond storage:
a master that also hosts the coordinator, and one process that keeps Ray and the workers. All start
at once: Ray's head takes the longest, and storage is ready long before it.
"""

import os
import select
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from minigfs.client.config import ClientConfig
from minigfs.cluster import (
    ClusterLayout,
    ClusterState,
    ProcessEvent,
    ProcessKind,
    ProcessRecord,
    load_state,
    running_pid,
    save_state,
    stop_all,
)
from minigfs.cluster.masters import start_cluster
from minigfs.cluster.state import Setting
from minigfs.cluster.storage import (
    STORAGE_KINDS,
    StorageShape,
    await_storage,
    master_arguments,
    prepare_storage,
    python_program,
    tls_arguments,
)
from minigfs.errors import InvalidConfig, StartFailed, Unreachable
from minimr.cluster.status import ClusterStatus, gather_status, status_without_leader
from minimr.cluster.workers import check_foreign_ray, end_workers

__all__ = [
    "CLUSTER_KINDS",
    "ClusterShape",
    "down",
    "last_known_status",
    "status",
    "up",
    "worker_count",
]

WORKERS = "workers"  # name and role of the process that keeps Ray, and the setting with their count
_WORKER_SETTINGS = ("memory", "ray_address", "ray_insecure")  # what else restarts the workers
_WORKER_COUNT_MAX = 256
_DEFAULT_WORKER_COUNT_MAX = 8  # of a large machine; more costs memory that nobody asked for
_STOP_TIMEOUT_MS = 15_000
_WORKERS_TIMEOUT_MS = 60_000  # a cold Ray on a busy machine
_WORKERS_INTERVAL_MS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterShape:
    """What `up` was asked for; None means what the cluster has, or the default for a new one."""

    storage: StorageShape = field(default_factory=StorageShape)
    workers: int | None = None
    memory_bytes: int | None = None
    ray_address: str | None = None
    insecure: bool = False


def up(
    layout: ClusterLayout,
    shape: ClusterShape,
    *,
    progress: Callable[[ProcessEvent], None] = lambda _event: None,
    waiting: Callable[[], None] | None = None,
) -> ClusterState:
    """Start whatever of the cluster is not running; return when every part knows the others.

    ``waiting`` is called if another `up` or `down` is at work. Another number of workers restarts
    them; what they are doing is done again.
    """
    _check_workers(shape.workers)
    check_foreign_ray(shape.ray_address or "", insecure=shape.insecure)
    with layout.locked(waiting):
        before = load_state(layout)
        state = prepare_storage(layout, shape.storage)
        state = _with_workers(state, shape)
        names = (WORKERS, *_WORKER_SETTINGS)
        if before is not None and any(
            before.settings.get(name) != state.settings.get(name) for name in names
        ):
            _stop(layout, state, state.record(WORKERS))
        save_state(layout, state)
        state = start_cluster(layout, state, CLUSTER_KINDS, progress=progress)
        await_storage(layout, state)
        _await_workers(layout, state)
    return state


def down(
    layout: ClusterLayout,
    *,
    progress: Callable[[ProcessEvent], None] = lambda _event: None,
    waiting: Callable[[], None] | None = None,
) -> Path | None:
    """Stop every process of the cluster, also what a killed one left behind; data stays.

    Ray's logs outside of the cluster's home go too, if the workers ended as they were told to.
    Else somebody may want to know why: gives where they lie.
    """
    if not layout.state_file.exists():
        return None
    stopped: set[str] = set()

    def show(event: ProcessEvent) -> None:
        if event.what == "stopped":
            stopped.add(event.record.name)
        progress(event)

    with layout.locked(waiting):
        state = load_state(layout)
        if state is None:
            return None
        stop_all(layout, state, progress=show, timeout_ms=_STOP_TIMEOUT_MS)
        ray_logs = _end_leftovers(layout, state)
        if ray_logs is not None and WORKERS in stopped:
            shutil.rmtree(ray_logs, ignore_errors=True)
            return None
    return ray_logs


def status(layout: ClusterLayout) -> ClusterStatus:
    """What runs and how it is. `ClusterError`, at once, if the cluster is not running."""
    config = ClientConfig.discover(home=str(layout.home))
    state = load_state(layout)
    if state is not None and not any(map(running_pid, state.with_role("master"))):
        raise Unreachable(f"the cluster in {layout.home} is not running: start it with `minimr up`")
    return gather_status(config, expected_workers=worker_count(state) if state else 0)


def last_known_status(layout: ClusterLayout) -> ClusterStatus:
    """What can be told while no master leads."""
    return status_without_leader(ClientConfig.discover(home=str(layout.home)))


def worker_count(state: ClusterState) -> int:
    """How many workers `up` keeps running on this machine."""
    return int(state.settings.get(WORKERS) or 0)


def worker_directory(layout: ClusterLayout) -> Path:
    return layout.directory(WORKERS)


def _await_workers(layout: ClusterLayout, state: ClusterState) -> None:
    """Wait until the master has heard of the workers, also of those an earlier `up` started.

    `StartFailed` if they do not come in time.
    """
    config = ClientConfig.discover(home=str(layout.home))
    expected = worker_count(state)
    deadline_ns = time.monotonic_ns() + _WORKERS_TIMEOUT_MS * 1_000_000
    while (alive := len(gather_status(config, expected_workers=expected).workers)) < expected:
        if time.monotonic_ns() >= deadline_ns:
            raise StartFailed(
                f"{alive} of {expected} workers came in {_WORKERS_TIMEOUT_MS // 1000} s: "
                f"see {layout.logs}"
            )
        # Workers speak to the master, not to us: who has registered can only be asked.
        time.sleep(_WORKERS_INTERVAL_MS / 1000)


def _check_workers(workers: int | None) -> None:
    if workers is not None and not 1 <= workers <= _WORKER_COUNT_MAX:
        raise InvalidConfig(f"--workers {workers}: give a number from 1 to {_WORKER_COUNT_MAX}")


def _with_workers(state: ClusterState, asked: ClusterShape) -> ClusterState:
    count = asked.workers or state.settings.get(WORKERS) or _default_worker_count()
    changed: dict[str, Setting] = {WORKERS: count}
    if asked.memory_bytes is not None:
        changed["memory"] = asked.memory_bytes
    if asked.ray_address is not None:
        changed["ray_address"] = asked.ray_address
        changed["ray_insecure"] = int(asked.insecure)
    state = state.with_settings(changed)
    if not state.with_role(WORKERS):
        state = state.with_processes([ProcessRecord(name=WORKERS, role=WORKERS)])
    return state


def _default_worker_count() -> int:
    return min(len(os.sched_getaffinity(0)), _DEFAULT_WORKER_COUNT_MAX)


def _stop(layout: ClusterLayout, state: ClusterState, record: ProcessRecord) -> None:
    pid = running_pid(record)
    if pid is not None:
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)
                poll = select.poll()
                poll.register(descriptor, select.POLLIN)
                if not poll.poll(_STOP_TIMEOUT_MS):
                    raise StartFailed(f"{record.name} (pid {pid}) does not stop: kill it")
            finally:
                os.close(descriptor)
    _end_leftovers(layout, state)


def _end_leftovers(layout: ClusterLayout, state: ClusterState) -> Path | None:
    """Gives where Ray's logs lie, if that is outside of the cluster's home."""
    return end_workers(
        worker_directory(layout), token_file=layout.token_file, cluster_id=state.cluster_id
    )


def _workers_command(
    layout: ClusterLayout, state: ClusterState, record: ProcessRecord
) -> list[str]:
    settings = state.settings
    servers = state.with_role("chunkserver")
    places = sorted({(server.host, server.rack) for server in servers if server.host})
    racks = [rack for _, rack in places] if any(rack for _, rack in places) else []
    return [
        *(*python_program("minimr"), "serve", "workers"),
        f"--dir={worker_directory(layout)}",
        "--listen=127.0.0.1:0",
        f"--cluster-id={state.cluster_id}",
        f"--token-file={layout.token_file}",
        *tls_arguments(state.tls),
        f"--workers={state.settings[WORKERS]}",
        *(f"--join={address}" for address in state.masters),
        *(f"--host-label={host}" for host, _ in places),
        *(f"--rack={rack}" for rack in racks),
        *([f"--memory={settings['memory']}"] if settings.get("memory") else ()),
        *([f"--ray-address={settings['ray_address']}"] if settings.get("ray_address") else ()),
        *(["--insecure"] if settings.get("ray_insecure") else ()),
    ]


def _master_command(layout: ClusterLayout, state: ClusterState, record: ProcessRecord) -> list[str]:
    return [
        *(*python_program("minimr"), "serve", "master"),
        *master_arguments(layout, state, record),
    ]


CLUSTER_KINDS: Mapping[str, ProcessKind] = {
    **STORAGE_KINDS,
    "master": ProcessKind(command=_master_command),
    WORKERS: ProcessKind(command=_workers_command),
}
