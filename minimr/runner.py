"""Run a job: check, plan, hand it to a backend, wait.

Everything that can be known before any work is checked before any work: the output's absence, every
input, the plan. What comes after is the backend's; this module waits for it and turns the end into
a `Result` or an error.
"""

import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import xxhash

from minigfs.errors import MinigfsError
from minimr.backends.base import Backend
from minimr.backends.broadcast_files import broadcast_files
from minimr.backends.job_code import pack_job
from minimr.backends.run_plan import Plan, make_plan
from minimr.config import (
    ATTEMPT_LIMIT,
    CANCEL_WAIT_MS,
    DEFAULT_BACKUP_POLICY,
    DEFAULT_MEMORY_BYTES,
    MEMORY_BYTES_MIN,
    PROGRESS_DEADLINE_MS,
    SLOWSTART_PERMILLE,
    STATUS_WAIT_MS,
)
from minimr.errors import JobCancelled, JobFailed, JobUsageError
from minimr.format_options import is_format_setting
from minimr.formats.storage import Storage, is_text
from minimr.ids import JobId
from minimr.job import Job
from minimr.messages import Failure, JobSpec, JobState, JobStatus, Part
from minimr.outputs import Compression, OutputFormat, Text, chosen_compression, chosen_format
from minimr.partition import RangePartition
from minimr.plan.naming import join_url, staging_url, working_urls
from minimr.plan.splits import InputFile

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["JobHandle", "Plan", "Result", "explain", "run", "submit"]

OnStatus = Callable[[JobStatus], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A job that is done.

    ``phases_ms`` has ``plan``, ``map``, ``reduce``, ``publish``, which follow each other, and their
    sum ``total``. ``counters`` count committed attempts only.
    """

    job_id: JobId
    output: str
    counters: Mapping[str, int]
    parts: tuple[Part, ...]
    phases_ms: Mapping[str, int]
    output_format: OutputFormat = field(default_factory=Text)
    compression: Compression = ""
    storage: Storage = field(default_factory=Storage, repr=False)

    def to_arrow(self) -> "pa.Table":
        """The output as a table with columns ``key`` and ``value``, in order of the parts.

        Text does not say what its types were: strings (binary where it is not UTF-8), and int64
        where every value is a decimal integer. `JobUsageError` for the format ``raw``.
        """
        from minimr.formats.part_reader import read_parts

        contents = [
            self.storage.read_bytes(join_url(self.output, part.name)) for part in self.parts
        ]
        return read_parts(contents, self.output_format, self.compression)

    def summary(self) -> dict[str, object]:
        """What ``minimr run --json`` prints."""
        return {
            "job_id": self.job_id,
            "output": self.output,
            "counters": dict(sorted(self.counters.items())),
            "phases_ms": dict(self.phases_ms),
            "parts": [
                {
                    "name": part.name,
                    "size_bytes": part.size_bytes,
                    "xxh3": part.xxh3,
                    "records": part.record_count,
                }
                for part in self.parts
            ],
        }


class JobHandle:
    """A submitted job. `submit` makes these."""

    def __init__(
        self,
        backend: Backend,
        spec: JobSpec,
        *,
        plan_ms: int,
        storage: Storage,
        output_format: OutputFormat,
    ) -> None:
        self._backend = backend
        self._spec = spec
        self._plan_ms = plan_ms
        self._storage = storage
        self._output_format = output_format
        self._final: JobStatus | None = None
        # A script may end without waiting: what the backend holds is given back all the same.
        self._close = weakref.finalize(self, backend.close)

    @property
    def job_id(self) -> JobId:
        return self._spec.job_id

    @property
    def output(self) -> str:
        return self._spec.output

    def status(self) -> JobStatus:
        """How far the job is, now."""
        return self._final or self._note(self._backend.status(self.job_id))

    def cancel(self) -> None:
        """Ask the job to end; once it has, nothing of it is at ``output``. Too late is no error."""
        if self._final is None:
            self._backend.cancel(self.job_id)

    def wait(self, on_status: OnStatus | None = None) -> Result:
        """Wait for the end; ``on_status`` hears of each change on the way.

        Raises
        ------
        JobFailed
            A task failed too often; the message names the record, file and offset if known.
        JobCancelled
            By ``cancel``, by somebody else, or by Ctrl-C here.
        """
        try:
            status = self._wait(on_status)
        except KeyboardInterrupt:
            status = self._interrupt()
        if status.state is JobState.DONE:
            return self._result(status)
        if status.state is JobState.CANCELLED:
            raise JobCancelled(f"job {self.job_id} was cancelled; nothing is at {self.output}")
        assert status.failure is not None
        raise JobFailed(
            _failure_line(status, status.failure), status.failure.traceback
        ) from self._backend.failure_cause(self.job_id)

    def _wait(self, on_status: OnStatus | None) -> JobStatus:
        known_version = -1
        while True:
            status = self._final or self._note(
                self._backend.status(
                    self.job_id, known_version=known_version, wait_ms=STATUS_WAIT_MS
                )
            )
            if on_status is not None and status.version != known_version:
                on_status(status)
            known_version = status.version
            if status.state.is_final:
                return status

    def _interrupt(self) -> JobStatus:
        """Ctrl-C: the job ends, and what it left beside the output goes. A second one is obeyed
        at once. An output that is about to appear is waited for: it stays, and the interrupt goes
        its way. User code that does not return is not."""
        status = self._backend.cancel(self.job_id)
        deadline_ms = _monotonic_ms() + CANCEL_WAIT_MS
        while not status.state.is_final and (
            status.state is JobState.PUBLISHING or _monotonic_ms() < deadline_ms
        ):
            status = self._backend.status(
                self.job_id, known_version=status.version, wait_ms=CANCEL_WAIT_MS
            )
        self._note(status)
        self._close()
        if status.state is JobState.DONE:
            raise KeyboardInterrupt
        if status.state is JobState.FAILED:
            return status
        for url in working_urls(self._spec.staging):
            self._storage.remove(url)
        raise JobCancelled(f"job {self.job_id} was interrupted; nothing is at {self.output}")

    def _note(self, status: JobStatus) -> JobStatus:
        if status.state.is_final:
            self._final = status
            self._close()
        return status

    def _result(self, status: JobStatus) -> Result:
        phases_ms = {"plan": self._plan_ms, **status.phase_ms}
        return Result(
            job_id=status.job_id,
            output=status.output,
            counters=status.counters,
            parts=status.parts,
            phases_ms={**phases_ms, "total": sum(phases_ms.values())},
            output_format=self._output_format,
            compression=chosen_compression(dict(self._spec.settings)),
            storage=self._storage,
        )


def run(
    job: Job,
    *,
    input: str | Sequence[str],  # noqa: A002 - named as users say it
    output: str,
    reducers: int | None = None,
    split_size: int | None = None,
    backend: str = "auto",
    processes: int | None = None,
    memory: int | None = None,
    overwrite: bool = False,
    backup_policy: str = DEFAULT_BACKUP_POLICY,
    task_timeout_s: int = PROGRESS_DEADLINE_MS // 1000,
    max_bad: int = 0,
    settings: Mapping[str, str] | None = None,
    home: str | None = None,
    on_status: OnStatus | None = None,
) -> Result:
    """Run a job and wait for its end. See `submit` for the parameters, `JobHandle.wait` for what
    ``on_status`` hears and how a job may end."""
    handle = submit(
        job,
        input=input,
        output=output,
        reducers=reducers,
        split_size=split_size,
        backend=backend,
        processes=processes,
        memory=memory,
        overwrite=overwrite,
        backup_policy=backup_policy,
        task_timeout_s=task_timeout_s,
        max_bad=max_bad,
        settings=settings,
        home=home,
    )
    return handle.wait(on_status)


def submit(
    job: Job,
    *,
    input: str | Sequence[str],  # noqa: A002 - named as users say it
    output: str,
    reducers: int | None = None,
    split_size: int | None = None,
    backend: str = "auto",
    processes: int | None = None,
    memory: int | None = None,
    overwrite: bool = False,
    backup_policy: str = DEFAULT_BACKUP_POLICY,
    task_timeout_s: int = PROGRESS_DEADLINE_MS // 1000,
    max_bad: int = 0,
    settings: Mapping[str, str] | None = None,
    home: str | None = None,
) -> JobHandle:
    """Start a job.

    Parameters
    ----------
    job : Job
    input : str or sequence of str
        URLs or paths of files, directories and globs. Names that begin with ``_`` or ``.`` are
        skipped in directories and globs; ``.gz``, ``.zst``, ``.bz2`` and ``.xz`` are unpacked.
    output : str
        URL or path of a directory, which the job makes. Nothing is there before the job is done.
    reducers : int, optional
        Number of output parts. Default: by the size of the input.
    split_size : int, optional
        Input bytes of one map task. Default: a few tasks per slot, 8 to 64 MiB each.
    backend : {"auto", "local", "ray"}
        ``auto`` is ``local`` if all URLs are local files, else the cluster.
    processes : int, optional
        Local backend: executor processes; 0 runs everything in the calling thread, in order, one
        attempt per task, as a debugger wants it. Default: what fits the input.
    memory : int, optional
        Bytes that one executor process may use beyond what it uses idle. Default: 1 GiB. The local
        backend uses processes then, unless ``processes`` says 0.
    overwrite : bool
        Replace the output of an earlier job, at the very end. What no job wrote is not replaced.
    backup_policy : {"rate", "paper", "none"}
        When a slow task is run a second time: see `minimr.coordinator.backups`.
    task_timeout_s : int
        An attempt that makes no progress for so many seconds is given up and tried elsewhere.
    max_bad : int
        Records on which ``map`` may fail (it raises, or its process dies, twice): they are set
        aside in files ``_quarantine-*`` of the output, with file, offset and reason; what ``map``
        counted or wrote to side outputs for them is as if it had not been.
    settings : mapping, optional
        Options of the formats (`minimr.inputs`, `minimr.outputs`) and whatever else describes
        the run; they are written into the manifest.
    home : str, optional
        Home of the cluster. Default: ``$MINIMR_HOME``, else ``~/.minimr``.

    Raises
    ------
    OutputExists, InputMissing, JobUsageError
        Before any work.
    """
    started_ms = _monotonic_ms()
    storage = Storage({"minigfs": {"home": home}} if home is not None else {})
    plan = make_plan(
        job, storage, input=input, output=output, reducers=reducers, split_size=split_size,
        backend=backend, processes=processes, is_bounded=memory is not None, overwrite=overwrite,
        settings=settings or {}, home=home,
    )  # fmt: skip
    spec = _specify(
        plan, memory=memory, settings=settings or {}, backup_policy=backup_policy,
        task_timeout_s=task_timeout_s, max_bad=max_bad,
    )  # fmt: skip
    try:
        if job.files:
            spec = msgspec.structs.replace(spec, files=broadcast_files(job, spec, storage))
        if isinstance(job.partition, RangePartition):
            # Arrow, and all of a task
            from minimr.backends.key_sampling import sampled_split_points

            points = sampled_split_points(job, spec, storage)
            spec = msgspec.structs.replace(spec, split_points=points)
        chosen = _open_backend(plan, storage, home)
    except BaseException:
        if job.files:  # copies of them; nobody knows of the job yet
            with suppress(MinigfsError, OSError):  # what went wrong first is what counts
                for url in working_urls(spec.staging):
                    storage.remove(url)
        raise
    handle = JobHandle(
        chosen, spec, plan_ms=_monotonic_ms() - started_ms, storage=storage,
        output_format=chosen_format(job.output_format, settings or {}),
    )  # fmt: skip
    try:
        chosen.submit(spec, job)
    except BaseException:
        handle._close()  # noqa: SLF001 - its own module
        raise
    return handle


def explain(
    job: Job,
    *,
    input: str | Sequence[str],  # noqa: A002 - named as users say it
    output: str,
    reducers: int | None = None,
    split_size: int | None = None,
    backend: str = "auto",
    processes: int | None = None,
    memory: int | None = None,
    overwrite: bool = False,
    settings: Mapping[str, str] | None = None,
    home: str | None = None,
) -> Plan:
    """What `submit` would do; all its checks are made, nothing is run."""
    storage = Storage({"minigfs": {"home": home}} if home is not None else {})
    return make_plan(
        job, storage, input=input, output=output, reducers=reducers, split_size=split_size,
        backend=backend, processes=processes, is_bounded=memory is not None, overwrite=overwrite,
        settings=settings or {}, home=home,
    )  # fmt: skip


# --- from plan to backend ------------------------------------------------------------------------


def _specify(
    plan: Plan,
    *,
    memory: int | None,
    settings: Mapping[str, str],
    backup_policy: str,
    task_timeout_s: int,
    max_bad: int,
) -> JobSpec:
    job = plan.job
    if max_bad and job.map is None:
        raise JobUsageError(
            f"job {job.name!r} maps batches: only a map function on records can set bad ones aside"
        )
    if memory is not None and memory < MEMORY_BYTES_MIN:
        raise JobUsageError(
            f"memory {memory}: an executor needs at least {MEMORY_BYTES_MIN >> 20} MiB"
        )
    job_id = JobId(f"{job.name}-{os.urandom(4).hex()}")
    code = _code(plan)
    return JobSpec(
        job_id=job_id,
        name=job.name,
        code=code,
        inputs=plan.inputs,
        output=plan.output,
        staging=staging_url(plan.output, job_id),
        splits=plan.splits,
        partition_count=plan.partition_count,
        overwrite=plan.overwrite,
        published_by_master=plan.backend == "ray" and plan.output.startswith("minigfs://"),
        settings=_portable(settings),
        memory_bytes=memory if memory is not None else DEFAULT_MEMORY_BYTES,
        attempt_limit=ATTEMPT_LIMIT if plan.slot_count > 0 else 1,
        submitted_ms=time.time_ns() // 1_000_000,
        code_fingerprint=xxhash.xxh3_64_hexdigest(code) if code else "",
        input_fingerprint=_fingerprint(plan.files),
        backup_policy=backup_policy,
        progress_deadline_ms=task_timeout_s * 1000,
        max_bad=max_bad,
        slowstart_permille=SLOWSTART_PERMILLE if plan.backend == "ray" else 1000,
    )


def _portable(settings: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The settings as they can be sent and written into the manifest. Those of the job, which has
    them already, may be any bytes, such as a pattern to look for."""
    for name, text in settings.items():
        if is_format_setting(name) and not is_text(text):
            raise JobUsageError(f"{name}={text!r}: must be UTF-8")
    return tuple(
        (name, text.encode("utf-8", "backslashreplace").decode())
        for name, text in sorted(settings.items())
    )


def _code(plan: Plan) -> bytes:
    """The job for other processes; one that stays in this process may be impossible to pickle."""
    try:
        return pack_job(plan.job)
    except JobUsageError:
        if plan.in_processes:
            raise
        return b""


def _fingerprint(files: Sequence[InputFile]) -> str:
    digest = xxhash.xxh3_64()
    for file in files:
        digest.update(f"{file.size_bytes} {file.url}\n".encode())
    return str(digest.hexdigest())


def _open_backend(plan: Plan, storage: Storage, home: str | None) -> Backend:
    if plan.backend == "ray":
        from minimr.backends.cluster_client import ClusterClient

        return ClusterClient.discover(home=home)
    from minimr.backends.local import LocalBackend

    return LocalBackend(
        slot_count=plan.slot_count,
        in_processes=plan.in_processes,
        storage=storage,
        environment={"MINIMR_HOME": home} if home is not None else {},
    )


# --- ends ----------------------------------------------------------------------------------------


def _failure_line(status: JobStatus, failure: Failure) -> str:
    what = f"task {status.failed_task}: " if status.failed_task is not None else ""
    return f"job {status.job_id} failed: {what}{failure.error}"


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
