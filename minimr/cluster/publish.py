"""A job's output appears and the job ends, in one log entry (DESIGN 6.9).

The entry changes two machines, the file system and the coordinator, or neither. ``replication/``
knows nothing of this: to it, this is a third machine with commands of its own.
"""

from collections.abc import Iterator

import msgspec

from minigfs.errors import FileExists, MinigfsError, error_from_wire
from minigfs.master import commands as fs_commands
from minigfs.master.machine import FileSystemMachine
from minigfs.master.state import FileSystemState
from minigfs.master.transition import transition
from minimr.coordinator.commands import PublishJob
from minimr.coordinator.machine import CoordinatorMachine
from minimr.ids import JobId

__all__ = ["PUBLISH_MACHINE", "PublishCommand", "PublishMachine", "decode_refusal",
           "encode_publish"]  # fmt: skip

PUBLISH_MACHINE = "publish"  # its name in the log


class PublishCommand(msgspec.Struct, frozen=True, kw_only=True):
    """Rename ``staging`` to ``output`` (paths in minigfs) and end the job as done."""

    job_id: JobId
    staging: str
    output: str
    overwrite: bool
    now_ms: int


class _PublishReply(msgspec.Struct, frozen=True, kw_only=True):
    code: str = ""  # of the error; "" if the output stands at its place
    message: str = ""


_encoder = msgspec.msgpack.Encoder()
_command_decoder = msgspec.msgpack.Decoder(PublishCommand)
_reply_decoder = msgspec.msgpack.Decoder(_PublishReply)


def encode_publish(command: PublishCommand) -> bytes:
    return _encoder.encode(command)


def decode_refusal(reply: bytes) -> MinigfsError | None:
    """Why the output could not be published; None if it was."""
    decoded = _reply_decoder.decode(reply)
    return error_from_wire(decoded.code, decoded.message) if decoded.code else None


class PublishMachine:
    """See ``replication.machines.Machine``. A job that is not waiting to be published, because it
    was published or cancelled before, is left as it is, and its files are too.

    It has no state of its own, and nothing to freeze: the two machines are frozen beside it."""

    def __init__(self, files: FileSystemMachine, jobs: CoordinatorMachine) -> None:
        self._files = files
        self._jobs = jobs

    def apply(self, index: int, command: bytes) -> bytes:
        del index
        publish = _command_decoder.decode(command)
        jobs = self._jobs.preview(PublishJob(now_ms=publish.now_ms, job_id=publish.job_id))
        if jobs is self._jobs.state:
            return _encoder.encode(_PublishReply())
        try:
            files = _move_output(self._files.state, publish)
        except MinigfsError as refusal:
            return _encoder.encode(_PublishReply(code=refusal.code, message=refusal.message))
        self._files.adopt(files)
        self._jobs.adopt(jobs)
        return _encoder.encode(_PublishReply())

    def freeze(self) -> Iterator[bytes]:
        return iter(())

    def restore(self, records: Iterator[bytes]) -> None:
        del records


def _move_output(state: FileSystemState, publish: PublishCommand) -> FileSystemState:
    parent = publish.output.rpartition("/")[0] or "/"
    now_ms = publish.now_ms
    if publish.overwrite:
        state = _without(state, publish.output, now_ms)
    state = _apply(state, fs_commands.MakeDirectory(now_ms, parent, parents=True, exist_ok=True))
    try:
        return _apply(
            state, fs_commands.Rename(now_ms, publish.staging, publish.output, replace=False)
        )
    except FileExists as error:
        raise FileExists(
            f"output {publish.output} appeared while the job ran: choose another, remove it, or "
            f"run with --overwrite"
        ) from error


def _without(state: FileSystemState, path: str, now_ms: int) -> FileSystemState:
    try:
        return _apply(state, fs_commands.Remove(now_ms, path, recursive=True))
    except FileNotFoundError:
        return state


def _apply(state: FileSystemState, command: fs_commands.Command) -> FileSystemState:
    after, reply = transition(state, command)
    if isinstance(reply, fs_commands.Refused):
        raise error_from_wire(reply.code, reply.message)
    return after
