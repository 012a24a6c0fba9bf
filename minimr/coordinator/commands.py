"""Changes of the coordinator's hard state, as they stand in the replicated log.

A command carries everything its effect depends on, the time included, so that every replay gives
the same state. Applying one twice, or too late, changes nothing (see ``transitions``). Tags are the
log's format and never change their meaning. ``backups`` says which attempts of a command were
backup attempts: that one is a backup is soft state until it ends.
"""

import msgspec

from minimr.ids import AttemptId, JobId, WorkerId
from minimr.messages import AttemptResult, Failure, JobSpec

__all__ = [
    "AdmitJob",
    "AttemptCommand",
    "Command",
    "CommitAttempt",
    "EndAttempts",
    "EndJob",
    "FailAttempt",
    "JobCommand",
    "LoseAttempts",
    "NoteWorkers",
    "OpenTerm",
    "PublishJob",
    "StopJob",
    "decode_command",
    "encode_command",
]


class _Command(msgspec.Struct, frozen=True, kw_only=True):
    now_ms: int


class OpenTerm(_Command, frozen=True, tag="open-term"):
    """A coordinator takes over: attempts it names carry its leader's ``term``."""

    term: int


class NoteWorkers(_Command, frozen=True, tag="note-workers"):
    """The workers that may be given tasks, sorted: a later coordinator waits for their reports."""

    workers: tuple[WorkerId, ...]


class AdmitJob(_Command, frozen=True, tag="admit-job"):
    spec: JobSpec


class CommitAttempt(_Command, frozen=True, tag="commit-attempt"):
    """The task commit: the first one of a task stands, its result is the task's. ``rivals`` are the
    task's other running attempts, which end with it."""

    attempt: AttemptId
    result: AttemptResult
    rivals: tuple[AttemptId, ...] = ()
    backups: tuple[AttemptId, ...] = ()

    @property
    def job_id(self) -> JobId:
        return self.attempt.task.job_id


class FailAttempt(_Command, frozen=True, tag="fail-attempt"):
    """An attempt failed; ``lost`` are committed map attempts whose output it could not fetch."""

    attempt: AttemptId
    failure: Failure
    lost: tuple[AttemptId, ...] = ()
    backups: tuple[AttemptId, ...] = ()

    @property
    def job_id(self) -> JobId:
        return self.attempt.task.job_id


class LoseAttempts(_Command, frozen=True, tag="lose-attempts"):
    """Attempts that ended with their worker, and committed map outputs that went with its disk or
    could not be fetched: ``damaged_count`` for a wrong sum. ``is_set_back``: running attempts were
    ended by choice."""

    job_id: JobId
    attempts: tuple[AttemptId, ...]
    backups: tuple[AttemptId, ...] = ()
    is_set_back: bool = False
    damaged_count: int = 0


AttemptCommand = CommitAttempt | FailAttempt | LoseAttempts


class EndAttempts(_Command, frozen=True, tag="end-attempts"):
    """Several of them at once, one after the other: what a worker reports together."""

    ends: tuple[AttemptCommand, ...]


class StopJob(_Command, frozen=True, tag="stop-job"):
    """The job shall not go on: cancelled, or with ``failure``, failed outside of any attempt."""

    job_id: JobId
    failure: Failure | None = None


class EndJob(_Command, frozen=True, tag="end-job"):
    """A stopped job has no running attempt left: nothing touches its staging directory now."""

    job_id: JobId


class PublishJob(_Command, frozen=True, tag="publish-job"):
    """The output stands at its place. Proposed in one log entry with the renames (DESIGN 6.9)."""

    job_id: JobId


JobCommand = AttemptCommand | StopJob | EndJob | PublishJob
Command = OpenTerm | NoteWorkers | AdmitJob | EndAttempts | JobCommand

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)


def encode_command(command: Command) -> bytes:
    return _encoder.encode(command)


def decode_command(data: bytes) -> Command:
    """The command behind ``data``; ``msgspec.DecodeError`` if there is none."""
    return _decoder.decode(data)
