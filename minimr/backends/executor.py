"""The parent's side of an executor child: start it, give it attempts, notice its death.

User code runs only there (DESIGN 2): a segmentation fault, a memory hog or a loop that never lets
go of the interpreter costs one attempt, never the worker. The child is killed by the kernel when
its parent dies (``PR_SET_PDEATHSIG``). That signal fires when the *thread* that started the child
ends, so one thread of this module, which lives as long as the process, starts all of them.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from minigfs.transport.security import TlsFiles
from minimr.backends.crash_dump import crash_stack
from minimr.ids import WorkerId
from minimr.messages import (
    Assignment,
    Failure,
    FailureKind,
    GetMapOutputs,
    JobSpec,
    MapOutputNews,
)
from minimr.tasks.executor_channel import (
    AskOutputs,
    AttemptEnd,
    AttemptProgress,
    AttemptsEnded,
    ChannelClosed,
    ExecutorChannel,
    OpenJob,
    OutputNews,
    RunAttempts,
)
from minimr.tasks.failures import OUT_OF_MEMORY
from minimr.tasks.gasp import PAGE_BYTES, GaspPage

__all__ = ["AttemptWork", "ExecutorProcess", "share_of_cores"]

_LOOK_INTERVAL_MS = 100  # at is_cancelled and at the child's life, while it is silent
_LOG_BYTES_MAX = 8 * 1024 * 1024  # a longer log is set aside when the next executor starts
_LOG_END_BYTES = 32 << 10  # a stack of a hundred frames, faulthandler's most
_LOG_TAIL_LINES = 20
_MEMORY_WORDS = ("memory allocation of", "bad_alloc", "MemoryError", "Cannot allocate memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptWork:
    """Attempts of one job, to be run one after the other, and all that the child needs for that."""

    spec: JobSpec
    assignments: tuple[Assignment, ...]
    scratch: Path  # this worker's segment directory
    worker_id: WorkerId
    address: str = ""  # of the worker's segment server; "" when there is none
    host: str = ""
    token: bytes = b""  # to fetch segments from other workers
    cluster_id: str = ""
    tls: TlsFiles | None = None
    logs: tuple[Path, ...] = ()  # for what user code prints, one each; (): the executor's own log


class ExecutorProcess:
    """One child. It runs the attempts of one job, one after the other, and is then closed.

    Parameters
    ----------
    log_file : Path
        Where the child's stdout and stderr go; its directory exists.
    environment : mapping
        Variables added to this process's own.
    warm_modules : sequence of str
        Imported by the child while it waits for its job.
    """

    def __init__(
        self,
        *,
        log_file: Path,
        environment: Mapping[str, str] | None = None,
        warm_modules: Sequence[str] = (),
    ) -> None:
        self._log_file = log_file
        self._opened: str | None = None  # the job it serves
        self._killed = threading.Event()
        self._reaping = threading.Lock()  # a pid that was reaped may be somebody else's
        ours, theirs = socket.socketpair()
        page = os.memfd_create("minimr-gasp", os.MFD_CLOEXEC)
        try:
            os.ftruncate(page, PAGE_BYTES)
            self._page = GaspPage.shared(page)
            with theirs:
                starting = _spawner().submit(
                    _start, (theirs.fileno(), page), log_file,
                    {**os.environ, **(environment or {})}, warm_modules,
                )  # fmt: skip
                self._process = starting.result()
        finally:
            os.close(page)
        self._channel = ExecutorChannel(ours)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def page(self) -> GaspPage:
        """Where the attempt that runs is."""
        return self._page

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None and not self._has_ended(os.WNOHANG)

    def run(
        self,
        work: AttemptWork,
        on_progress: Callable[[int, int, int], None],
        is_cancelled: Callable[[], bool],
        ask_outputs: Callable[[GetMapOutputs, Callable[[], bool]], MapOutputNews | None],
    ) -> Iterator[AttemptEnd]:
        """Run attempts, all of one job, and give their ends as they are told. ``page`` was cleared
        for them; once it is stopped, no more of them begin.

        ``ask_outputs`` waits for news of map outputs, in a thread of its own, for as long as the
        function that it is given does not say that the attempt has ended.
        ``on_progress(turn, done_bytes, total_bytes)`` is called from this thread. The last end is a
        failure with ``DIED`` when the child ended under an attempt, with ``CANCELLED`` after
        ``kill`` or when ``is_cancelled()`` became true; then the executor is of no more use, and
        nothing is known of attempts of other turns whose end was not told.
        """
        assert self._opened in (None, work.spec.job_id), "an executor serves one job"
        log_offset = self._log_file.stat().st_size
        ended = threading.Event()
        try:
            self._hand_over(work)
            while True:
                message = self._channel.receive_from_executor(_LOOK_INTERVAL_MS)
                match message:
                    case AttemptProgress():
                        on_progress(message.turn, message.done_bytes, message.total_bytes)
                    case AttemptsEnded():
                        yield from message.ends
                        if message.is_last:
                            return
                    case AskOutputs():
                        self._start_asking(message.request, ask_outputs, ended)
                if is_cancelled():
                    self.kill()
                # What user code forked may hold the channel open after the child's death.
                if message is None and not self.is_alive:
                    raise ChannelClosed
        except ChannelClosed:
            turn = max(1, self._page.turn)
            failure = self._end_of(work, turn, log_offset)
            yield AttemptEnd(turn, self._page.worked_ms, failure=failure)
        finally:
            ended.set()

    def _start_asking(
        self,
        request: GetMapOutputs,
        ask_outputs: Callable[[GetMapOutputs, Callable[[], bool]], MapOutputNews | None],
        ended: threading.Event,
    ) -> None:
        """The child waits for the answer, and says nothing but its end before it has come."""

        def ask() -> None:
            news = ask_outputs(request, ended.is_set)
            if news is not None and not ended.is_set():
                with suppress(ChannelClosed):
                    self._channel.send_to_executor(OutputNews(news=news))

        threading.Thread(target=ask, name="map-outputs", daemon=True).start()

    def kill(self) -> None:
        """End the child and what it started, now; from any thread."""
        self._killed.set()
        with self._reaping:
            self._kill_group()

    def close(self) -> None:
        """Kill the child if it runs and free its resources; not while ``run`` is in progress."""
        self.kill()
        self._reap()
        self._channel.close()

    def _kill_group(self) -> None:
        # Before it is reaped, the number of the child's process group cannot be anybody else's.
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _has_ended(self, flags: int = 0) -> bool:
        """Wait for (or look for) the child's end, but leave its entry, which keeps its pid ours."""
        try:
            ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | flags)
        except ChildProcessError:  # something else in this process has reaped it
            return True
        return ended is not None

    def _reap(self) -> int:
        """Wait for the child's end, end whatever it started, and give its exit status."""
        if self._process.returncode is None:
            self._has_ended()
        with self._reaping:
            self._kill_group()
            return self._process.wait()

    def _hand_over(self, work: AttemptWork) -> None:
        if self._opened is None:
            self._channel.send_to_executor(
                OpenJob(
                    spec=work.spec,
                    scratch=str(work.scratch),
                    worker_id=work.worker_id,
                    address=work.address,
                    host=work.host,
                    token=work.token,
                    cluster_id=work.cluster_id,
                    tls=work.tls,
                )
            )
            self._opened = work.spec.job_id
        logs = tuple(str(log) for log in work.logs)
        self._channel.send_to_executor(RunAttempts(assignments=work.assignments, logs=logs))

    def _end_of(self, work: AttemptWork, turn: int, log_offset: int) -> Failure:
        """Why the child is gone; it has closed its end, so it is dead or about to be."""
        status = self._reap()
        attempt = work.assignments[turn - 1].attempt
        if self._killed.is_set():
            return Failure(kind=FailureKind.CANCELLED, error=f"{attempt} was cancelled")
        log_file = self._log_file
        if work.logs and work.logs[turn - 1].exists():
            log_file, log_offset = work.logs[turn - 1], 0
        log = _log_end(log_file, log_offset)
        tail = "\n".join(log.splitlines()[-_LOG_TAIL_LINES:])
        suspect = self._page.suspect
        at = ""
        if suspect is not None:
            where = f" at byte {suspect.offset}" if suspect.offset >= 0 else ""
            at = f" on record {suspect.record} in {suspect.url}{where}"
        return Failure(
            kind=FailureKind.DIED,
            error=f"{attempt}: {describe_death(status, tail)}{at} (log: {log_file})",
            traceback=crash_stack(log) or tail,
            record=suspect.record if suspect is not None else "",
            url=suspect.url if suspect is not None else "",
            offset=suspect.offset if suspect is not None else -1,
            mark=self._page.mark,
        )


def describe_death(status: int, log_tail: str) -> str:
    """What the end of an executor means to the user. ``status`` is as `subprocess` gives it."""
    if any(words in log_tail for words in _MEMORY_WORDS):
        return OUT_OF_MEMORY
    if status == -signal.SIGKILL:
        return (
            "the executor was killed (SIGKILL): by hand, or because the machine ran out of memory"
        )
    if status < 0:
        return f"the executor was ended by {signal.Signals(-status).name}: user code crashed it"
    return f"the executor exited with status {status}: user code ended its process"


def _log_end(log_file: Path, offset: int) -> str:
    """The last of what was written since ``offset``."""
    with log_file.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(offset, size - _LOG_END_BYTES))
        return log.read().decode(errors="replace")


def _start(
    descriptors: tuple[int, int],
    log_file: Path,
    environment: Mapping[str, str],
    warm_modules: Sequence[str],
) -> "subprocess.Popen[bytes]":
    with suppress(FileNotFoundError):
        if log_file.stat().st_size > _LOG_BYTES_MAX:
            log_file.replace(log_file.with_suffix(f"{log_file.suffix}.old"))
    with log_file.open("ab") as log:
        return subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "minimr.tasks.executor"),
                *(*map(str, descriptors), str(os.getpid()), *warm_modules),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Arrow's allocator would take 1 GiB at once, which the bound on memory would count.
            env={"MIMALLOC_ARENA_EAGER_COMMIT": "0", **environment},
            pass_fds=descriptors,
            process_group=0,  # a Ctrl-C on our terminal is ours to handle
        )


def share_of_cores(executor_count: int) -> dict[str, str]:
    """Environment for executors that share this machine: together they use each core once.

    Arrow and Polars would each start a thread per core in each executor, which then take turns.
    """
    threads = str(max(1, (os.cpu_count() or 1) // executor_count))
    return {"OMP_NUM_THREADS": threads, "POLARS_MAX_THREADS": threads}


_spawner_lock = threading.Lock()
_spawner_of: dict[int, ThreadPoolExecutor] = {}


def _spawner() -> ThreadPoolExecutor:
    """The one thread of this process (a fork needs its own) that starts children."""
    with _spawner_lock:
        pid = os.getpid()
        if pid not in _spawner_of:
            _spawner_of.clear()
            _spawner_of[pid] = ThreadPoolExecutor(1, thread_name_prefix="executor-spawner")
        return _spawner_of[pid]
