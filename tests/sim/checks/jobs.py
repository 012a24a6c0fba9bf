"""What jobs promise: a task is committed once and not run again, an output appears all at once.

The book sees every entry of the coordinator's and the publishing machine when the first member
applies it (the others must do the same, see ``states``), every task a coordinator hands out, and
what clients were told.
"""

import random

from minigfs.master.namespace import find_inode, split_path
from minigfs.master.state import DirectoryInode, FileSystemState
from minimr.coordinator.commands import (
    Command,
    CommitAttempt,
    EndAttempts,
    FailAttempt,
    LoseAttempts,
    decode_command,
)
from minimr.coordinator.invariants import check_invariants
from minimr.coordinator.state import AttemptEnd, CoordinatorState
from minimr.ids import AttemptId, JobId, TaskId, TaskPhase
from minimr.messages import JobSpec, JobState, JobStatus
from tests.sim.coverage import Coverage
from tests.sim.hosted import operation_of_stamp
from tests.sim.violation import require

__all__ = [
    "MANIFEST_NAME",
    "POISON_MARK",
    "JobBook",
    "is_poisoned",
    "output_path",
    "part_name",
]

MANIFEST_NAME = "_manifest.json"


POISON_MARK = "0:7"
POISONED_SHARE = 0.1


def is_poisoned(task: TaskId) -> bool:
    """Whether a map's input holds a record that ends every process that maps it."""
    return task.phase is TaskPhase.MAP and random.Random(str(task)).random() < POISONED_SHARE


def output_path(job_id: JobId) -> str:
    return f"/out/{job_id}"


def part_name(index: int) -> str:
    return f"part-r-{index:05d}"


class JobBook:
    """Of all jobs of a run."""

    def __init__(self, coverage: Coverage) -> None:
        self._coverage = coverage
        self._commits: dict[TaskId, tuple[int, AttemptId]] = {}
        self._lost_at: dict[AttemptId, int] = {}
        self._assigned: dict[AttemptId, None] = {}
        self._writers: dict[int, AttemptId] = {}
        self._outputs: dict[JobId, DirectoryInode] = {}
        self._ended: dict[JobId, JobStatus] = {}
        self._told: dict[JobId, JobState] = {}
        self.submitted: dict[JobId, JobSpec] = {}
        self.cancelled: dict[JobId, None] = {}

    # What coordinators and workers do

    def assigned(self, attempt: AttemptId, applied_index: int) -> None:
        """A coordinator hands out a task, at what its member has applied."""
        require(attempt not in self._assigned, "attempt named twice", str(attempt))
        self._assigned[attempt] = None
        self._coverage["attempts"] += 1
        index, committed = self._commits.get(attempt.task, (applied_index + 1, attempt))
        if index > applied_index:
            return
        lost_index = self._lost_at.get(committed, applied_index + 1)
        require(
            lost_index <= applied_index,
            "committed task run again",
            f"{attempt} is handed out at entry {applied_index}; {committed} was committed at "
            f"{index} and its output was not lost",
        )
        self._coverage["maps run again"] += 1

    def writes(self, operation: int, attempt: AttemptId) -> None:
        """An attempt begins a part file: whoever finds the file knows whose it is."""
        self._writers[operation] = attempt

    # What the machines do

    def changed(
        self, index: int, command: bytes, before: CoordinatorState, after: CoordinatorState
    ) -> None:
        """An entry of the coordinator's machine, seen for the first time."""
        if after is before:
            return
        check_invariants(after)
        self._note(index, decode_command(command), before, after)
        for status in after.history[len(before.history) :]:
            self._note_end(status)

    def _note(
        self, index: int, command: Command, before: CoordinatorState, after: CoordinatorState
    ) -> None:
        match command:
            case CommitAttempt(attempt=attempt):
                record = after.jobs[attempt.task.job_id].task(attempt.task)
                if record.end_of(attempt) is not AttemptEnd.COMMITTED:
                    return
                _, standing = self._commits.get(attempt.task, (0, attempt))
                require(
                    standing == attempt or standing in self._lost_at,
                    "task committed twice",
                    f"{attempt} at entry {index}; {standing} stands and was not lost",
                )
                require(attempt in self._assigned, "commit of nobody's attempt", str(attempt))
                self._commits[attempt.task] = (index, attempt)
                self._coverage["task commits"] += 1
            case LoseAttempts(attempts=lost) | FailAttempt(lost=lost):
                for attempt in lost:
                    if self._commits.get(attempt.task, (0, None))[1] == attempt:
                        self._lost_at.setdefault(attempt, index)
            case EndAttempts(ends=ends):
                for end in ends:
                    self._note(index, end, before, after)
            case _:
                pass

    def _note_end(self, status: JobStatus) -> None:
        job_id, spec = status.job_id, self.submitted[status.job_id]
        require(job_id not in self._ended, "job ended twice", str(job_id))
        self._ended[job_id] = status
        self._coverage[f"jobs {status.state.value}"] += 1
        if status.state is not JobState.DONE:
            return
        maps, reduces = len(spec.splits), spec.partition_count
        counted = (status.counters.get("maps"), status.counters.get("reduces"))
        self._coverage["backups"] += status.counters["backup.launched"]
        self._coverage["backups that won"] += status.counters["backup.won"]
        backups = [status.counters[f"backup.{what}"] for what in ("launched", "won", "wasted")]
        require(backups[0] == backups[1] + backups[2], "backups miscounted", f"{job_id}: {backups}")
        require(
            counted == ((1 << maps) - 1, (1 << reduces) - 1),
            "counters are not those of one commit a task",
            f"{job_id}: {status.counters}",
        )
        poisoned = sum(is_poisoned(TaskId(job_id, TaskPhase.MAP, index)) for index in range(maps))
        self._coverage["records set aside"] += poisoned
        require(
            status.counters.get("map.bad_records", 0) == poisoned,
            "bad records are not set aside once each",
            f"{job_id}: {status.counters}, {poisoned} poisoned",
        )
        for index, part in enumerate(status.parts):
            task = TaskId(job_id, TaskPhase.REDUCE, index)
            require(
                self._commits[task][1] == part.attempt,
                "part of an uncommitted attempt",
                f"{job_id}: {part}",
            )

    def publishes(
        self,
        job_id: JobId,
        files: tuple[FileSystemState, FileSystemState],
        jobs: tuple[CoordinatorState, CoordinatorState],
    ) -> None:
        """An entry of the publishing machine; the states before and after it."""
        moved, ended = files[0] is not files[1], jobs[0] is not jobs[1]
        require(moved == ended, "half a publication", f"{job_id}: {moved=}, {ended=}")
        self._coverage["publications" if moved else "publications refused or repeated"] += 1
        if not moved:
            return
        for status in jobs[1].history[len(jobs[0].history) :]:
            self._note_end(status)
        require(self._ended[job_id].state is JobState.DONE, "published, not done", str(job_id))
        output = find_inode(files[1], split_path(output_path(job_id)))
        require(isinstance(output, DirectoryInode), "published nothing", str(job_id))
        assert isinstance(output, DirectoryInode)
        self._outputs[job_id] = output
        self._check_output(job_id, files[1], output)

    def _check_output(self, job_id: JobId, state: FileSystemState, output: DirectoryInode) -> None:
        expected = {part_name(part.attempt.task.index): part for part in self._ended[job_id].parts}
        children = dict(output.children.items_from(""))
        require(MANIFEST_NAME in children, "output without a manifest", f"{job_id}: {children}")
        for name, part in expected.items():
            require(name in children, "output without a part", f"{job_id}: {name}, {children}")
            writer = self._writers.get(operation_of_stamp(state.inodes[children[name]].created_ms))
            require(
                writer == part.attempt,
                "part of an uncommitted attempt",
                f"{job_id}: {name} was written by {writer}, {part.attempt} is committed",
            )
        strays = len(children) - len(expected) - 1
        require(not strays, "stray file in an output", f"{job_id}: {sorted(children)}")

    def files_changed(self, state: FileSystemState) -> None:
        """After every entry of the file system: outputs are there whole, or not at all."""
        for job_id in self.submitted:
            now = find_inode(state, split_path(output_path(job_id)))
            published = self._outputs.get(job_id)
            if published is None:
                require(now is None, "output before its publication", str(job_id))
            else:
                require(
                    isinstance(now, DirectoryInode) and now.children == published.children,
                    "published output changed",
                    f"{job_id}: {now}",
                )

    # What clients are told

    def told(self, status: JobStatus) -> None:
        if status.state.is_final:
            before = self._told.setdefault(status.job_id, status.state)
            ended = self._ended.get(status.job_id)
            require(
                ended is not None and before is status.state is ended.state,
                "told two ends of a job",
                f"{before} and {status}; it ended as {ended}",
            )

    def check_end(self, state: CoordinatorState) -> None:
        """All is over: every job that was taken in has ended, in the way it may."""
        require(not state.jobs, "jobs never end", f"{list(state.jobs)}")
        ended = {status.job_id: status.state for status in state.history}
        for job_id, told in self._told.items():
            require(ended.get(job_id) is told, "job forgotten", f"{job_id}: told {told}, {ended}")
        for job_id, end in ended.items():
            require(
                end is not JobState.CANCELLED or job_id in self.cancelled,
                "cancelled by nobody",
                str(job_id),
            )
