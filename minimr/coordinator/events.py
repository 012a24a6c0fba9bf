"""What happens to the coordinator. Together with the time, these are its only inputs."""

from dataclasses import dataclass

from minimr.coordinator.commands import Command
from minimr.ids import JobId
from minimr.messages import (
    CancelJob,
    Failure,
    GetJob,
    GetJobSpec,
    GetMapOutputs,
    HelloWorker,
    ListJobs,
    ListWorkers,
    PingWorker,
    PollTask,
    ReportFailure,
    ReportSuccess,
    ReportTasks,
    SubmitJob,
)

__all__ = [
    "Applied",
    "Called",
    "CallerGone",
    "CoordinatorRequest",
    "Event",
    "PublishRefused",
    "Refused",
    "Tick",
]

CoordinatorRequest = (
    SubmitJob
    | GetJob
    | ListJobs
    | CancelJob
    | GetJobSpec
    | HelloWorker
    | PollTask
    | PingWorker
    | ReportSuccess
    | ReportFailure
    | ReportTasks
    | GetMapOutputs
    | ListWorkers
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """A request arrived. Exactly one ``Reply`` or ``Refuse`` with its ``token`` answers it, now or
    later, unless ``CallerGone`` comes first or a ``Propose`` with it is refused by the log."""

    token: int
    request: CoordinatorRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerGone:
    """Nobody waits for the answer to ``token`` any more."""

    token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A command is durable and the machine has applied it, whether or not it changed the state."""

    command: Command
    token: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The log did not take a command that had a ``token`` (its disk is full, it is shutting down);
    the caller has been told by whoever saw the error."""

    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishRefused:
    """The answer to ``PublishOutput`` when the renames were refused."""

    job_id: JobId
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time passed; at least every ``TICK_INTERVAL_MS``."""


Event = Called | CallerGone | Applied | Refused | PublishRefused | Tick
