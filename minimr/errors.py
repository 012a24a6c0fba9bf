"""Every error a user of minimr can meet, in one tree.

::

    MinimrError                     (a MinigfsError: one wire format, one CLI edge for both)
    |-- JobUsageError               the call is wrong: exit code 2
    |   |-- UnknownJob
    |   |-- UnreadableJob
    |   |-- RunsNoJobs              the cluster keeps files only
    |   |-- InputMissing            exit code 1
    |   `-- OutputExists            exit code 1
    |-- JobFailed                   the job ran and failed: exit code 1
    |-- JobCancelled                exit code 130
    |-- TaskError                   one attempt failed
    |   |-- UnsupportedType         a key or value of a type that jobs cannot carry
    |   |-- AmbiguousOutput         a tab in a key, or a line feed in either (DESIGN 5.4)
    |   |-- UnreadableInput         a damaged or truncated input file
    |   `-- SegmentUnavailable      a map output cannot be fetched
    |       `-- SegmentDamaged      a sum in it is wrong
    `-- NoSuchJob                   exit code 1
"""

from typing import ClassVar

from minigfs.errors import MinigfsError

__all__ = [
    "AmbiguousOutput",
    "InputMissing",
    "JobCancelled",
    "JobFailed",
    "JobUsageError",
    "MinimrError",
    "NoSuchJob",
    "OutputExists",
    "RunsNoJobs",
    "SegmentDamaged",
    "SegmentUnavailable",
    "TaskError",
    "UnknownJob",
    "UnreadableInput",
    "UnreadableJob",
    "UnsupportedType",
]


class MinimrError(MinigfsError):
    code = "minimr"
    exit_code: ClassVar[int] = 1


class JobUsageError(MinimrError, ValueError):
    code = "job-usage"
    exit_code = 2


class UnknownJob(JobUsageError):
    code = "unknown-job"


class UnreadableJob(JobUsageError):
    code = "unreadable-job"


class RunsNoJobs(JobUsageError):
    code = "runs-no-jobs"


class InputMissing(JobUsageError):
    code = "input-missing"
    exit_code = 1


class OutputExists(JobUsageError):
    code = "output-exists"
    exit_code = 1


class JobFailed(MinimrError):
    """``details`` is the traceback of the user's function: user frames only, "" if none ran."""

    code = "job-failed"

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details

    def __str__(self) -> str:
        return f"{self.message}\n{self.details}".rstrip()

    def __reduce__(self) -> tuple[type["JobFailed"], tuple[str, str]]:
        return type(self), (self.message, self.details)


class JobCancelled(MinimrError):
    code = "job-cancelled"
    exit_code = 130


class TaskError(MinimrError):
    code = "task"


class UnsupportedType(TaskError, TypeError):
    code = "unsupported-type"


class AmbiguousOutput(TaskError, ValueError):
    code = "ambiguous-output"


class UnreadableInput(TaskError):
    code = "unreadable-input"


class SegmentUnavailable(TaskError):
    code = "segment-unavailable"


class SegmentDamaged(SegmentUnavailable):
    code = "segment-damaged"


class NoSuchJob(MinimrError):
    code = "no-such-job"
