"""What went wrong in an attempt, as its user should read it.

Tracebacks are cut down to the user's frames. What is known about the place, a record or a range of
the input, travels with the error.
"""

import traceback
from pathlib import Path
from types import FrameType, TracebackType

import msgspec

from minigfs.errors import MinigfsError
from minimr.errors import (
    AmbiguousOutput,
    JobUsageError,
    OutputExists,
    UnreadableInput,
    UnsupportedType,
)
from minimr.formats.records import MalformedRecord
from minimr.messages import Failure, FailureKind
from minimr.shuffle.fetch import MapOutputsLost

__all__ = [
    "AttemptCancelled",
    "AttemptFailed",
    "InputFailed",
    "OutputFailed",
    "UserCodeFailed",
    "OUT_OF_MEMORY",
    "described",
    "failure_of",
    "has_user_frame",
    "is_framework",
    "portable",
    "shown",
]

OUT_OF_MEMORY = "the executor reached the memory limit: give more with --memory SIZE, or use less"
_SHOWN_CHARACTERS = 200
_ERROR_CHARACTERS_MAX = 2_000
_TRACEBACK_CHARACTERS_MAX = 64_000
_FRAMEWORK = str(Path(__file__).parents[1]) + "/"  # .../minimr/
_JOBS = _FRAMEWORK + "jobs/"  # the standard jobs are user code


class AttemptFailed(MinigfsError):
    """The attempt ended without a result; ``failure`` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.error)
        self.failure = failure

    def __reduce__(self) -> tuple[type["AttemptFailed"], tuple[Failure]]:
        return type(self), (self.failure,)


class AttemptCancelled(Exception):
    """Nobody needs the attempt any more."""


class UserCodeFailed(Exception):
    """A user's function raised, or returned what it must not; raised ``from`` the cause, if any."""

    def __init__(
        self, message: str, *, record: str = "", url: str = "", offset: int = -1, where: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.record = record
        self.url = url
        self.offset = offset
        self.where = where


class InputFailed(Exception):
    """The file system failed while the input was read."""

    def __init__(self, message: str, url: str) -> None:
        super().__init__(message)
        self.url = url


class OutputFailed(Exception):
    """The file system failed while the output was written or published."""


def shown(value: object) -> str:
    """``repr``, shortened."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."


def described(error: BaseException) -> str:
    """Type and message of an exception, whatever its ``__str__`` does."""
    try:
        text = str(error)
    except Exception:  # it is the user's, and raised
        text = "(str() of it fails)"
    return f"{type(error).__name__}: {text}"


def portable(failure: Failure) -> Failure:
    """The failure as it can be sent and logged: UTF-8, one line, no longer than anybody reads."""
    return msgspec.structs.replace(
        failure,
        error=_fitted(" ".join(failure.error.splitlines()), _ERROR_CHARACTERS_MAX),
        traceback=_fitted(failure.traceback, _TRACEBACK_CHARACTERS_MAX),
    )


def _fitted(text: str, characters_max: int) -> str:
    if len(text) > characters_max:
        half = characters_max // 2
        text = f"{text[:half]} ... {text[-half:]}"
    return text.encode("utf-8", "backslashreplace").decode()


def failure_of(error: BaseException) -> Failure:
    """How an attempt that ended by ``error`` is reported."""
    return portable(_failure_of(error))


def _failure_of(error: BaseException) -> Failure:
    match error:
        case UserCodeFailed():
            return _user_failure(error)
        case AttemptCancelled():
            return Failure(kind=FailureKind.CANCELLED, error="cancelled")
        case MapOutputsLost():
            return Failure(
                kind=FailureKind.FETCH,
                error=error.message,
                lost_outputs=error.attempts,
                damaged_count=error.damaged_count,
            )
        case InputFailed():
            return Failure(kind=FailureKind.INPUT, error=str(error), url=error.url)
        case MalformedRecord():
            return Failure(
                kind=FailureKind.INPUT,
                error=error.message,
                record=error.shown,
                url=error.url,
                offset=error.offset,
            )
        case UnreadableInput():
            return Failure(kind=FailureKind.INPUT, error=error.message)
        case AmbiguousOutput() | OutputExists():
            return Failure(kind=FailureKind.OUTPUT, error=str(error), is_final=True)
        case OutputFailed():
            return Failure(kind=FailureKind.OUTPUT, error=str(error))
        case MemoryError():
            return Failure(kind=FailureKind.DIED, error=OUT_OF_MEMORY)
        case UnsupportedType() | JobUsageError():
            return Failure(kind=FailureKind.USER, error=error.message, is_final=True)
        case _:
            return Failure(
                kind=FailureKind.INTERNAL,
                error=described(error),
                traceback="".join(traceback.format_exception(error)),
            )


def _user_failure(error: UserCodeFailed) -> Failure:
    text = error.message
    if error.record:
        text += f" on {error.record}"
    if error.where:
        text += f" in {error.where}"
    return Failure(
        kind=FailureKind.USER,
        error=text,
        traceback=user_traceback(error.__cause__) if error.__cause__ is not None else "",
        record=error.record,
        url=error.url,
        offset=error.offset,
    )


def user_traceback(error: BaseException) -> str:
    """The traceback without this framework's frames."""
    told = traceback.TracebackException.from_exception(error, capture_locals=False)
    if all(is_framework(frame.filename) for frame in told.stack):
        return ""
    one: traceback.TracebackException | None = told
    while one is not None:  # what it was raised from, or while handling, is told of too
        one.stack[:] = [frame for frame in one.stack if not is_framework(frame.filename)]
        one = one.__cause__ or one.__context__
    return "".join(told.format())


def has_user_frame(trace: TracebackType | None) -> bool:
    """Whether any frame is the user's: else it was our call that went wrong."""
    while trace is not None:
        frame: FrameType = trace.tb_frame
        if not is_framework(frame.f_code.co_filename):
            return True
        trace = trace.tb_next
    return False


def is_framework(filename: str) -> bool:
    """Whether a frame of this file says nothing to users."""
    return filename.startswith(_FRAMEWORK) and not filename.startswith(_JOBS)
