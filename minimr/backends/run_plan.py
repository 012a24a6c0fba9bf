"""What a run would do: every check that can be made before any work, and the plan."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from minimr import inputs as inputs_
from minimr import outputs
from minimr.agg import Aggregation
from minimr.backends.inputs import find_inputs
from minimr.config import LOCAL_PROCESS_BYTES_MIN
from minimr.errors import InputMissing, JobUsageError, OutputExists
from minimr.format_options import shuffle_compression
from minimr.formats.storage import Storage, absolute_url, is_local, is_text, local_path
from minimr.inputs import Blocks, InputFormat
from minimr.job import Job
from minimr.messages import Split
from minimr.plan.naming import MANIFEST_NAME
from minimr.plan.splits import InputFile, default_partition_count, estimated_bytes, plan_splits

__all__ = ["BACKENDS", "Plan", "make_plan"]

BACKENDS = ("auto", "local", "ray")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run would do, before anything is done.

    ``slot_count`` attempts run at the same time: executor children if ``in_processes``, else
    threads; 0 stands for the calling thread. On a cluster it is the number of workers.
    """

    job: Job
    inputs: tuple[str, ...]
    output: str
    backend: str
    slot_count: int
    in_processes: bool
    files: tuple[InputFile, ...]
    splits: tuple[Split, ...]
    partition_count: int
    overwrite: bool

    @property
    def input_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def largest_split_bytes(self) -> int:
        return max((split.size_bytes for split in self.splits), default=0)

    def summary(self) -> dict[str, object]:
        """What ``minimr run --explain --json`` prints."""
        return {
            "job": self.job.name,
            "backend": self.backend,
            "slots": self.slot_count,
            "in_processes": self.in_processes,
            "inputs": list(self.inputs),
            "files": len(self.files),
            "input_bytes": self.input_bytes,
            "maps": len(self.splits),
            "largest_split_bytes": self.largest_split_bytes,
            "reduces": self.partition_count,
            "output": self.output,
            "overwrite": self.overwrite,
        }

    def text(self) -> str:
        """The plan for people."""
        where = {"local": "this machine", "ray": "the cluster's workers"}[self.backend]
        how = "processes" if self.in_processes else "threads"
        slots = f"{self.slot_count} {how}" if self.slot_count else "the calling thread, in order"
        lines = [
            f"job        {self.job.name}",
            f"backend    {self.backend}: {where}, {slots}",
            f"input      {len(self.files)} file(s), {self.input_bytes:,} bytes",
            f"maps       {len(self.splits)}, the largest reads {self.largest_split_bytes:,} bytes",
            f"reduces    {self.partition_count or 'none: every map writes a part of the output'}",
            f"output     {self.output}" + (" (replaced if it exists)" if self.overwrite else ""),
        ]
        lines.extend(f"reads      {url}" for url in self.inputs)
        return "\n".join(lines)


def make_plan(
    job: Job,
    storage: Storage,
    *,
    input: str | Sequence[str],  # noqa: A002 - named as users say it
    output: str,
    reducers: int | None,
    split_size: int | None,
    backend: str,
    processes: int | None,
    is_bounded: bool,
    overwrite: bool,
    settings: Mapping[str, str],
    home: str | None,
) -> Plan:
    inputs = tuple(absolute_url(url) for url in ([input] if isinstance(input, str) else input))
    output = absolute_url(output)
    backend = _choose_backend(backend, (*inputs, output), processes)
    _check_job(job, inputs, reducers)
    input_format = _check_formats(job, settings)
    if not overwrite and storage.exists(output):
        raise OutputExists(f"{output} exists: name another output, or run with --overwrite")
    _check_output_place(storage, output)
    files = find_inputs(storage, inputs, input_format=input_format)
    read = [*(file.url for file in files), *map(absolute_url, job.files)]
    _check_output_spares(output, read)
    if overwrite:
        _check_output_is_a_jobs(storage, output)
    total_bytes = estimated_bytes(files)
    if backend == "ray":
        slot_count, in_processes = _cluster_slots(home), True
    else:
        slot_count, in_processes = _local_slots(job, total_bytes, processes, is_bounded=is_bounded)
    splits = plan_splits(files, split_bytes=split_size, slots=slot_count)
    if job.is_map_only:
        partition_count = 0
    elif reducers is not None:
        partition_count = reducers
    else:
        partition_count = default_partition_count(total_bytes, slot_count)
    return Plan(
        job=job,
        inputs=inputs,
        output=output,
        backend=backend,
        slot_count=min(slot_count, max(len(splits), partition_count, 1)),
        in_processes=in_processes,
        files=files,
        splits=splits,
        partition_count=partition_count,
        overwrite=overwrite,
    )


def _check_job(job: Job, inputs: tuple[str, ...], reducers: int | None) -> None:
    if not isinstance(job, Job):
        raise JobUsageError(f"a {type(job).__name__} is no job: make one with minimr.Job(...)")
    if not inputs:
        raise InputMissing("no input is given: name at least one file, directory or glob")
    if reducers is not None and reducers < 1:
        raise JobUsageError(f"{reducers} reducers: use at least 1")
    if reducers is not None and job.is_map_only:
        raise JobUsageError(f"job {job.name!r} has no reduce: drop the number of reducers")


def _check_formats(job: Job, settings: Mapping[str, str]) -> InputFormat:
    """The input format; every setting of formats is looked at before any work."""
    outputs.chosen_format(job.output_format, settings)
    outputs.chosen_compression(settings)
    shuffle_compression(settings)
    chosen = inputs_.chosen_format(job.input_format, settings)
    if job.map is not None and isinstance(chosen, Blocks):
        raise JobUsageError(f"job {job.name!r}: input_format='blocks' needs map_batches=")
    return chosen


def _choose_backend(backend: str, urls: Sequence[str], processes: int | None) -> str:
    if backend not in BACKENDS:
        raise JobUsageError(f"backend {backend!r} is none of {', '.join(BACKENDS)}")
    if backend == "auto":
        all_local = all(is_local(url) for url in urls)
        backend = "local" if all_local or processes is not None else "ray"
    if backend == "ray" and processes is not None:
        raise JobUsageError("processes are the local backend's; a cluster has its workers")
    if processes is not None and processes < 0:
        raise JobUsageError(f"{processes} processes: use 0 for the calling thread, or more")
    return backend


def _check_output_place(storage: Storage, output: str) -> None:
    """What would fail the job after all its work: a parent that is a file, or cannot be written.
    Missing ones are made."""
    if not is_local(output):
        return  # other file systems say so themselves, or have no directories
    for parent in local_path(output).parents:
        entry = storage.entry(str(parent))
        if entry is not None and not entry.is_directory:
            raise JobUsageError(f"output {output}: {parent} is a file, not a directory")
        if entry is not None:
            _check_writable(output, parent)
            return


def _check_writable(output: str, directory: Path) -> None:
    try:
        Path(tempfile.mkdtemp(prefix="_minimr-", dir=directory)).rmdir()
    except OSError as error:
        raise JobUsageError(
            f"output {output}: cannot be made in {directory}: {error.strerror}"
        ) from error


def _check_output_spares(output: str, read: Sequence[str]) -> None:
    """Replacing a directory that holds what the job reads would delete it."""
    if not is_text(output):
        raise JobUsageError(f"output {output!r} has a name that is not UTF-8: name another")
    place = _real_parent(output)
    for url in read:
        real = str(local_path(url).resolve()) if is_local(url) else url
        if real == place or real.startswith(f"{place}/"):
            raise JobUsageError(f"output {output} holds the input {url}: name another output")


def _check_output_is_a_jobs(storage: Storage, output: str) -> None:
    """What is to be replaced, if anything: a wrong directory would be gone for good.

    Parts without a manifest are a job's as well: where publishing is not one atomic step, it may
    have been killed halfway.
    """
    entry = storage.entry(output)
    if entry is None:
        return
    names = [output]
    if entry.is_directory:
        names = [one.url.rpartition("/")[2] for one in storage.list_directory(output)]
    foreign = [name for name in names if not name.startswith(("_", "part-"))]
    if foreign and MANIFEST_NAME not in names:
        raise OutputExists(
            f"{output} has what no job wrote ({foreign[0]}), so --overwrite does not replace it: "
            "remove it yourself, or name another output"
        )


def _real_parent(url: str) -> str:
    """The path of a local output, whatever links lead to its directory; other URLs as they are."""
    path = local_path(url) if is_local(url) else None
    return url if path is None else str(path.parent.resolve() / path.name)


def _local_slots(
    job: Job, total_bytes: int, processes: int | None, *, is_bounded: bool
) -> tuple[int, bool]:
    """How many slots, and whether each is a process.

    Functions on batches let go of the interpreter while they compute, so threads do. Record
    functions hold it: two threads of them take longer than one (measured: 1.9 s against 1.4 s on
    110 MB), and processes are worth their start once there is enough to do. Memory can be bounded
    in processes only.
    """
    if processes is not None:
        return processes, processes > 0
    slot_count = len(os.sched_getaffinity(0))
    if is_bounded:
        return slot_count, True
    if not _has_record_functions(job):
        return slot_count, False
    if slot_count > 1 and total_bytes >= LOCAL_PROCESS_BYTES_MIN:
        return slot_count, True
    return 1, False


def _has_record_functions(job: Job) -> bool:
    steps = (job.combine, job.reduce)
    return job.map is not None or any(
        step is not None and not isinstance(step, Aggregation) for step in steps
    )


def _cluster_slots(home: str | None) -> int:
    from minimr.backends.cluster_client import ClusterClient

    client = ClusterClient.discover(home=home)
    try:
        return max(1, client.worker_count())
    finally:
        client.close()
