"""Names of jobs, tasks, attempts and workers (MapReduce section 3.1)."""

from enum import StrEnum
from typing import NewType

import msgspec

__all__ = ["AttemptId", "JobId", "TaskId", "TaskPhase", "WorkerId"]

JobId = NewType("JobId", str)
"""``<job name>-<8 hex digits>``, drawn by the client, so that submitting twice is harmless."""

WorkerId = NewType("WorkerId", str)
"""Random name of a worker, made with its directory and kept in it across restarts."""


class TaskPhase(StrEnum):
    MAP = "map"
    REDUCE = "reduce"
    PUBLISH = "publish"  # one task: manifest, then the output appears


class TaskId(msgspec.Struct, frozen=True, order=True, array_like=True):
    job_id: JobId
    phase: TaskPhase
    index: int

    def __str__(self) -> str:
        return f"{self.job_id}/{self.phase.value[0]}-{self.index:05d}"


class AttemptId(msgspec.Struct, frozen=True, order=True, array_like=True):
    """One execution of a task. ``term`` is the leader's that assigned it, so that two leaders
    never name the same attempt."""

    task: TaskId
    term: int
    counter: int

    def __str__(self) -> str:
        return f"{self.task}.{self.term}-{self.counter}"

    @property
    def file_stem(self) -> str:
        """A name for this attempt's files: unique within the job, safe in any path."""
        return f"{self.task.phase.value[0]}-{self.task.index:05d}.{self.term}-{self.counter}"
