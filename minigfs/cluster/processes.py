"""Spawning, finding and stopping the processes of a cluster; see the package's docstring.

Readiness: the child inherits the write end of a pipe as descriptor 3 and is told so by an
environment variable. One line in it means "serving" (the line is the address); the end of the pipe
without a line means that the process died. Both are events, so a start takes as long as it takes.
"""

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import msgspec

from minigfs.cluster.layout import ClusterLayout
from minigfs.cluster.state import ClusterState, ProcessRecord, save_state
from minigfs.errors import StartFailed
from minigfs.transport.address import TcpAddress, parse_address

__all__ = [
    "ProcessEvent",
    "ProcessKind",
    "announce_ready",
    "running_pid",
    "start_missing",
    "stop_one",
    "stop_all",
]

_READY_DESCRIPTOR = 3
_READY_VARIABLE = "MINIGFS_READY_DESCRIPTOR"
_LOG_TAIL_BYTES = 8 * 1024
_EXIT_POLL_MS = 5
_PF_EXITING = 0x4
# Private files, and no working directory that would keep a user's file system busy.
_ENTER_HOME = 'umask 077; cd "$0" && exec "$@"'


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessKind:
    """How the processes of one role are started.

    ``command`` gives the argument vector (``argv[0]`` is an absolute path); the program calls
    `announce_ready` when it serves. ``environment`` gives variables added to ours.
    """

    command: Callable[[ClusterLayout, ClusterState, ProcessRecord], Sequence[str]]
    environment: Callable[[ClusterLayout, ClusterState, ProcessRecord], Mapping[str, str]] = field(
        default=lambda _layout, _state, _record: {}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEvent:
    """Something to tell the user: ``what`` happened to a record's process."""

    record: ProcessRecord
    what: str  # "running", "started", "failed", "stopped", "killed"
    took_ms: int = 0


Progress = Callable[[ProcessEvent], None]


def announce_ready(address: str = "") -> None:
    """Tell whoever started this process that it serves, at ``address``. Harmless otherwise."""
    given = os.environ.pop(_READY_VARIABLE, None)
    if given is None:
        return
    # An `up` that was interrupted no longer listens; that is no reason to stop serving.
    with suppress(BrokenPipeError), os.fdopen(int(given), "wb", buffering=0) as pipe:
        pipe.write(address.encode() + b"\n")


def running_pid(record: ProcessRecord) -> int | None:
    """The pid of a record's process if that very process is alive, else None.

    One that was killed a moment ago counts as dead, even if the kernel is not done with it.
    """
    return record.pid if _exists(record) and not _is_dying(record) else None


def start_missing(
    layout: ClusterLayout,
    state: ClusterState,
    kinds: Mapping[str, ProcessKind],
    *,
    progress: Progress = lambda _event: None,
    timeout_ms: int = 60_000,
    only: Container[str] | None = None,
    leave_out: Container[str] = (),
) -> ClusterState:
    """Start every process that is not running and wait until all of them serve.

    ``only`` and ``leave_out`` are names of records, for starts in a certain order.
    Call it with the layout locked. The state is saved as soon as a pid is known. A process that
    does not start does not stop the others from starting, nor those that run: `StartFailed` is
    raised at the end of its stage and names each with the last line of its log. If there is a role
    that ``kinds`` lacks, nothing is started: part of a cluster may not be what was asked for.
    """
    layout.make()
    foreign = sorted({record.role for record in state.processes} - kinds.keys())
    if foreign:
        raise StartFailed(
            f"the cluster in {layout.home} has {', '.join(foreign)}, which this command cannot "
            f"start: use the `up` that made it (minimr up)"
        )
    for _stage, members in groupby(sorted(state.processes, key=_stage_of), key=_stage_of):
        missing: list[ProcessRecord] = []
        for record in members:
            if record.name in leave_out or (only is not None and record.name not in only):
                continue
            if running_pid(record) is None:
                missing.append(record)
            else:
                progress(ProcessEvent(record=record, what="running"))
        state = _start_together(layout, state, kinds, missing, progress, timeout_ms)
    return state


def stop_all(
    layout: ClusterLayout,
    state: ClusterState,
    *,
    progress: Progress = lambda _event: None,
    timeout_ms: int = 10_000,
) -> ClusterState:
    """Stop every process that runs: SIGTERM, after ``timeout_ms`` SIGKILL, highest stage first.

    Call it with the layout locked. What a process left behind in its session's process group is
    killed with it. Returns (and saves) the state without pids.
    """
    descending = sorted(state.processes, key=_stage_of, reverse=True)
    for _stage, members in groupby(descending, key=_stage_of):
        _stop_together(list(members), progress, timeout_ms)
    state = state.with_processes(
        msgspec.structs.replace(record, pid=None, started=None) for record in state.processes
    )
    save_state(layout, state)
    return state


def stop_one(record: ProcessRecord, *, timeout_ms: int = 10_000) -> None:
    """Stop one process as `stop_all` does. Call it with the layout locked."""
    _stop_together([record], lambda _event: None, timeout_ms)


def _stop_together(members: Sequence[ProcessRecord], progress: Progress, timeout_ms: int) -> None:
    running = [record for record in members if _signal(record, signal.SIGTERM)]
    stubborn = _await_exit(running, timeout_ms)
    for record in running:
        assert record.pid is not None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(record.pid, signal.SIGKILL)
        what = "killed" if record in stubborn else "stopped"
        progress(ProcessEvent(record=record, what=what))
    _await_exit(stubborn, timeout_ms)


@dataclass(slots=True)
class _Starting:
    record: ProcessRecord
    log_file: Path
    log_offset: int  # where this process's own lines begin
    pipe: int  # read end; closed once the outcome is known
    began_ns: int
    received: bytes = b""
    failure: str | None = None


def _stage_of(record: ProcessRecord) -> int:
    return record.stage


def _start_together(
    layout: ClusterLayout,
    state: ClusterState,
    kinds: Mapping[str, ProcessKind],
    missing: Sequence[ProcessRecord],
    progress: Progress,
    timeout_ms: int,
) -> ClusterState:
    failures: list[str] = []
    starting: list[_Starting] = []
    _await_exit(missing, timeout_ms)  # of those that were killed a moment ago: they hold ports
    for record in missing:
        problem = _why_not_startable(record)
        if problem is None:
            starting.append(_spawn(layout, state, kinds[record.role], record))
        else:
            failures.append(problem)
            progress(ProcessEvent(record=record, what="failed"))
    if starting:
        state = state.with_processes(one.record for one in starting)
        save_state(layout, state)
        _await_ready(starting, progress, timeout_ms)
        state = state.with_processes(one.record for one in starting)
        save_state(layout, state)
        failures.extend(one.failure for one in starting if one.failure is not None)
    if failures:
        raise StartFailed("; ".join(failures))
    return state


def _why_not_startable(record: ProcessRecord) -> str | None:
    address = parse_address(record.address) if record.address else None
    if not isinstance(address, TcpAddress):
        return None
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            return (
                f"{record.name} cannot listen on {record.address}: {error.strerror}; "
                f"stop what holds port {address.port}, then start again"
            )
    return None


def _spawn(
    layout: ClusterLayout, state: ClusterState, kind: ProcessKind, record: ProcessRecord
) -> _Starting:
    layout.directory(record.name).mkdir(mode=0o700, exist_ok=True)
    log_file = layout.log_file(record.name)
    log_offset = log_file.stat().st_size if log_file.exists() else 0
    environment = {
        **os.environ,
        **kind.environment(layout, state, record),
        _READY_VARIABLE: str(_READY_DESCRIPTOR),
    }
    command = kind.command(layout, state, record)
    read_end, write_end = os.pipe()
    try:
        # Not subprocess.Popen: the child outlives us, and nobody is to own or wait for it.
        pid = os.posix_spawn(
            "/bin/sh",
            ["/bin/sh", "-c", _ENTER_HOME, str(layout.home), *command],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (
                    os.POSIX_SPAWN_OPEN,
                    1,
                    str(log_file),
                    os.O_WRONLY | os.O_CREAT | os.O_APPEND,
                    0o600,
                ),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                (os.POSIX_SPAWN_DUP2, write_end, _READY_DESCRIPTOR),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE],
        )
    finally:
        os.close(write_end)
    record = msgspec.structs.replace(record, pid=pid, started=_start_identity(pid))
    return _Starting(record, log_file, log_offset, read_end, time.monotonic_ns())


def _await_ready(starting: Sequence[_Starting], progress: Progress, timeout_ms: int) -> None:
    deadline_ns = time.monotonic_ns() + timeout_ms * 1_000_000
    with selectors.DefaultSelector() as selector:
        for one in starting:
            selector.register(one.pipe, selectors.EVENT_READ, one)
        try:
            while selector.get_map():
                left_ns = deadline_ns - time.monotonic_ns()
                ready = selector.select(left_ns / 1e9) if left_ns > 0 else []
                if not ready:
                    break
                for key, _events in ready:
                    _receive(key.data, selector, progress)
        finally:
            waiting = [key.data for key in selector.get_map().values()]
            for one in starting:
                os.close(one.pipe)
    for one in waiting:
        one.failure = (
            f"{one.record.name} did not answer within {timeout_ms / 1000:g} s: see {one.log_file}"
        )
        progress(ProcessEvent(record=one.record, what="failed", took_ms=timeout_ms))


def _receive(one: _Starting, selector: selectors.BaseSelector, progress: Progress) -> None:
    received = os.read(one.pipe, 4096)
    one.received += received
    if received and not one.received.endswith(b"\n"):
        return
    selector.unregister(one.pipe)
    took_ms = (time.monotonic_ns() - one.began_ns) // 1_000_000
    if not received:
        last_line = _last_log_line(one.log_file, one.log_offset)
        one.failure = f"{one.record.name} did not start: {last_line} (log: {one.log_file})"
        progress(ProcessEvent(record=one.record, what="failed", took_ms=took_ms))
        return
    announced = one.received.decode().strip()
    if not one.record.address and announced:
        one.record = msgspec.structs.replace(one.record, address=announced)
    progress(ProcessEvent(record=one.record, what="started", took_ms=took_ms))


def _last_log_line(log_file: Path, offset: int) -> str:
    with log_file.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(offset, size - _LOG_TAIL_BYTES))
        lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it ended without a word"


def _signal(record: ProcessRecord, number: signal.Signals) -> bool:
    """Send a signal to a record's process, never to another one; whether it was there."""
    import psutil

    if record.pid is None:
        return False
    try:
        # Looked up before the identity is checked, and psutil checks that it is still the same.
        process = psutil.Process(record.pid)
        if running_pid(record) is None:
            return False
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True


def _await_exit(running: Sequence[ProcessRecord], timeout_ms: int) -> list[ProcessRecord]:
    """Wait until processes are gone; those that are not in time.

    They need not be our children, so there is no exit to wait for but by a pidfd, which sandboxes
    may refuse: this looks every few milliseconds.
    """
    deadline_ns = time.monotonic_ns() + timeout_ms * 1_000_000
    left = list(running)
    while left and time.monotonic_ns() < deadline_ns:
        left = [record for record in left if _exists(record)]
        if left:
            time.sleep(_EXIT_POLL_MS / 1000)
    return left


def _exists(record: ProcessRecord) -> bool:
    if record.pid is None or record.started is None:
        return False
    return _start_identity(record.pid) == record.started


def _is_dying(record: ProcessRecord) -> bool:
    """Whether SIGKILL waits for a process, or the kernel is taking it apart (proc_pid_stat(5))."""
    try:
        stat = Path(f"/proc/{record.pid}/stat").read_text(encoding="utf-8", errors="replace")
        status = Path(f"/proc/{record.pid}/status").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return True
    flags = int(stat.rpartition(")")[2].split()[6])
    pending = next(line for line in status.splitlines() if line.startswith("ShdPnd:"))
    return bool(flags & _PF_EXITING or int(pending.split()[1], 16) & 1 << (signal.SIGKILL - 1))


def _start_identity(pid: int) -> str | None:
    """Boot id and start tick of a live process; None if there is none, or only its zombie.

    Not psutil's create_time, which moves when the clock is set. A zombie with other threads left is
    still on its way out, and holds its ports.
    """
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # our own dead child would stay a zombie
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *numbers = stat.rpartition(")")[2].split()
    if state == "X" or (state == "Z" and int(numbers[16]) <= 1):
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}:{numbers[18]}"  # field 22 of proc_pid_stat(5)
