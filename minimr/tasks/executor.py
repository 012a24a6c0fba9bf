"""The executor child: the only process that unpickles and runs user code (DESIGN 2 and 8).

Started as ``python -m minimr.tasks.executor DESCRIPTOR PAGE PARENT [MODULE...]`` by
`minimr.backends.executor`; the two descriptors are those of the channel and of the gasp page. While
it waits for its job it imports the named modules, so that a warm spare begins its first attempt at
once. It serves one job, under a bound on its private memory (``RLIMIT_DATA``), with a process group
of its own, and it never outlives its parent: the kernel kills it when the parent dies, whatever
user code is doing at that moment.

stdout and stderr are the worker's log file. A crash of the interpreter leaves the Python stack
there (faulthandler), which the parent adds to the failure it reports.
"""

import ctypes
import faulthandler
import importlib
import os
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

from minigfs.transport.client import ConnectionPool
from minigfs.transport.memory import give_back_freed_memory, keep_freed_memory
from minigfs.transport.security import Security
from minimr.formats.kept_input import KeptInput
from minimr.formats.storage import Storage
from minimr.job import Job
from minimr.messages import (
    Assignment,
    AttemptResult,
    Failure,
    FailureKind,
    GetMapOutputs,
    MapOutputNews,
)

if TYPE_CHECKING:
    from minimr.shuffle.fetch import SegmentFetcher
    from minimr.shuffle.pack import SegmentPack
    from minimr.tasks.attempt import AttemptContext
    from minimr.tasks.map_outputs import MapOutputs
from minimr.tasks.attempt_log import AttemptLog
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
from minimr.tasks.gasp import GaspPage

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
_KEEPS_FREED_BYTES_MIN = 1 << 30  # with less, what is freed is given back: slower, but exact
_ENDS_INTERVAL_NS = 50_000_000  # between two tellings of attempts that ended, if they are short
_PROGRESS_INTERVAL_NS = 100_000_000  # ten reports a second are plenty for a bar


def main(arguments: Sequence[str]) -> None:
    """Serve one job and return when the parent closes its end."""
    descriptor, page_descriptor, parent_pid, *warm_modules = arguments
    _die_with(int(parent_pid))
    # A Ctrl-C is the parent's to handle: it kills us when the job is to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable(all_threads=False)
    keep_freed_memory()
    channel = ExecutorChannel(socket.socket(fileno=int(descriptor)))
    try:
        with _importing(warm_modules):
            opened = channel.receive_in_executor()
        assert isinstance(opened, OpenJob)
        _serve_job(channel, opened, GaspPage.shared(int(page_descriptor)))
    except ChannelClosed:
        pass  # the parent is done with us
    finally:
        channel.close()


def _die_with(parent_pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:  # it died before we asked
        sys.exit(1)


@contextmanager
def _importing(modules: Sequence[str]) -> Iterator[None]:
    """Import modules in a thread of their own until the block ends.

    A job that comes early waits for the one at hand, but for no more: of two threads that import
    parts of one package at the same time, one can be handed a module that is half initialised.
    """
    ended = threading.Event()

    def import_all() -> None:
        for module in modules:
            if ended.is_set():
                return
            with suppress(ImportError):  # not every installation has all of them
                importlib.import_module(module)

    thread = threading.Thread(target=import_all, name="warm-up", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _bound_memory(memory_bytes: int) -> None:
    """Bound private memory to what is in use now (interpreter, libraries) and ``memory_bytes``."""
    if memory_bytes < _KEEPS_FREED_BYTES_MIN:
        import pyarrow as pa

        give_back_freed_memory(memory_bytes)
        pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own keeps what is freed
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
    limit = pages * resource.getpagesize() + memory_bytes
    _soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _serve_job(channel: ExecutorChannel, opened: OpenJob, page: GaspPage) -> None:
    importlib.import_module("minimr.tasks.attempt")  # our own libraries are not the job's memory
    _bound_memory(opened.spec.memory_bytes)
    session = _Session(channel, opened, page)
    while True:
        request = channel.receive_in_executor()
        assert isinstance(request, RunAttempts)
        for message in session.run(request):
            channel.send_from_executor(message)


class _Session:
    """One job's code, unpickled once, and its attempts."""

    def __init__(self, channel: ExecutorChannel, opened: OpenJob, page: GaspPage) -> None:
        self._channel = channel
        self._page = page
        self._opened = opened
        self._job: Job | None = None
        self._fetcher: SegmentFetcher | None = None
        self._map_outputs: MapOutputs | None = None
        self._pack: SegmentPack | None = None
        self._log = AttemptLog()
        self._storage = Storage(kept=KeptInput())
        self._reported_ns = 0

    def run(self, request: RunAttempts) -> Iterator[AttemptsEnded]:
        """Run them one after the other; short ones are told of together."""
        told_ns = time.monotonic_ns()
        ends: list[AttemptEnd] = []
        for turn, assignment in enumerate(request.assignments, start=1):
            if self._page.is_stopped:
                break
            self._page.take_turn(turn)
            result, failure = self._run(assignment, request.logs[turn - 1] if request.logs else "")
            sys.stdout.flush()
            sys.stderr.flush()
            ends.append(AttemptEnd(turn, self._page.worked_ms, result, failure))
            now_ns = time.monotonic_ns()
            is_due = now_ns - told_ns >= _ENDS_INTERVAL_NS
            if is_due and turn < len(request.assignments):
                yield AttemptsEnded(ends=tuple(ends), is_last=False)
                told_ns, ends = now_ns, []
        yield AttemptsEnded(ends=tuple(ends), is_last=True)

    def _run(self, assignment: Assignment, log: str) -> tuple[AttemptResult | None, Failure | None]:
        from minimr.tasks.attempt import AttemptFailed, run_attempt

        try:
            if log:
                self._log.begin(log)
            context = self._context(assignment)
            self._page.begin()
            return run_attempt(context), None
        except AttemptFailed as failed:
            return None, failed.failure
        except Exception as error:  # whatever it is, the parent must hear of it, not of a death
            traceback.print_exc()
            return None, _internal_failure(assignment, error)

    def _context(self, assignment: Assignment) -> "AttemptContext":
        from minimr.tasks.attempt import AttemptContext

        opened = self._opened
        return AttemptContext(
            job=self._load_job(),
            spec=opened.spec,
            assignment=assignment,
            scratch=Path(opened.scratch),
            worker_id=opened.worker_id,
            address=opened.address,
            host=opened.host,
            fetcher=self._segment_fetcher(),
            report_progress=self._report_progress,
            is_cancelled=lambda: False,  # the parent kills us instead
            page=self._page,
            map_outputs=self._outputs(),
            pack=self._segment_pack(),
            storage=self._storage,
        )

    def _load_job(self) -> Job:
        """The job; ``AttemptFailed`` if its code cannot be loaded here."""
        if self._job is None:
            import cloudpickle

            from minimr.tasks.failures import AttemptFailed

            try:
                self._job = cast("Job", cloudpickle.loads(self._opened.spec.code))
            except Exception as error:  # unpickling runs user code: imports, reducers
                traceback.print_exc()
                raise AttemptFailed(
                    Failure(
                        kind=FailureKind.USER,
                        error=f"the job's code cannot be loaded by a worker: {_one_line(error)}; "
                        f"install what it imports there, or define it in the job's own file",
                        traceback=traceback.format_exc(),
                    )
                ) from error
        return self._job

    def _segment_fetcher(self) -> "SegmentFetcher":
        from minimr.shuffle.fetch import SegmentFetcher

        if self._fetcher is None:
            opened = self._opened
            pool = None
            if opened.token:
                pool = ConnectionPool(Security(opened.token, opened.cluster_id, opened.tls))
            self._fetcher = SegmentFetcher(opened.host, pool)
        return self._fetcher

    def _outputs(self) -> "MapOutputs":
        from minimr.tasks.map_outputs import MapOutputs

        if self._map_outputs is None:
            self._map_outputs = MapOutputs(self._ask_outputs)
        return self._map_outputs

    def _segment_pack(self) -> "SegmentPack":
        from minimr.shuffle.pack import SegmentPack

        if self._pack is None:
            self._pack = SegmentPack()
        return self._pack

    def _ask_outputs(self, request: GetMapOutputs) -> MapOutputNews:
        self._channel.send_from_executor(AskOutputs(request=request))
        answer = self._channel.receive_in_executor()
        assert isinstance(answer, OutputNews)
        return answer.news

    def _report_progress(self, done_bytes: int, total_bytes: int) -> None:
        now_ns = time.monotonic_ns()
        if now_ns - self._reported_ns >= _PROGRESS_INTERVAL_NS:
            self._reported_ns = now_ns
            self._channel.send_from_executor(
                AttemptProgress(
                    turn=self._page.turn, done_bytes=done_bytes, total_bytes=total_bytes
                )
            )


def _internal_failure(assignment: Assignment, error: Exception) -> Failure:
    return Failure(
        kind=FailureKind.INTERNAL,
        error=f"{assignment.attempt}: {_one_line(error)} (a fault of minimr: see the log)",
        traceback=traceback.format_exc(),
    )


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


if __name__ == "__main__":
    main(sys.argv[1:])
