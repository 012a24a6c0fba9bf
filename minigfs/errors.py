"""Every error a user of minigfs can meet, in one tree.

::

    MinigfsError
    |-- UsageError                  the request itself is wrong
    |   |-- InvalidPath
    |   |-- InvalidConfig
    |   `-- Unsupported             (also NotImplementedError)
    |-- FileSystemError             the request is well formed, the tree says no
    |   |-- FileMissing             (also FileNotFoundError)
    |   |-- FileExists              (also FileExistsError)
    |   |-- IsDirectory             (also IsADirectoryError)
    |   |-- NotDirectory            (also NotADirectoryError)
    |   |-- DirectoryNotEmpty       (also OSError, ENOTEMPTY)
    |   |-- Busy                    what is to be changed is being cloned (also OSError, EBUSY)
    |   |-- PreconditionFailed      a transaction found something else than it was promised
    |   `-- WriterFenced            a writer or the holder of a fencing token was superseded
    |-- ClusterError                the cluster cannot answer
    |   |-- NoCluster               none is configured here: `minimr up` makes one
    |   |-- Unreachable             nobody listens, or the connection broke too early to matter
    |   |-- DeadlineExceeded        no answer in time (also TimeoutError)
    |   |-- OutcomeUnknown          the connection broke after a change was sent
    |   |-- NotLeader               this master does not lead, and changed nothing: ask the leader
    |   |-- MemberRemoved           this master belongs to its group no more
    |   |-- NoQuorum                too few masters answer to change anything, or to read the latest
    |   |-- SessionUnknown          the session expired or never was; nothing was executed
    |   |-- NoSpace                 a disk is full (also OSError, ENOSPC)
    |   `-- NotEnoughChunkservers
    |-- DamageError                 bytes or records are not what was written
    |   |-- CorruptChunk
    |   |-- CorruptLog
    |   |-- CorruptSnapshot
    |   `-- MemberRolledBack        a master's directory is an old copy: it lost what it promised
    |-- StartFailed                 a process of the cluster did not start
    |-- SecurityError
    |   `-- AuthenticationFailed    wrong or missing token
    `-- ProtocolError               a peer sent what no peer of ours sends
        |-- FrameTooLarge
        |-- StaleRequest            its reply was acknowledged before; nothing was executed
        `-- UnknownRequest

A class with a ``code`` crosses the wire as that code and comes back as the same class (see
``minigfs.transport``); the code is part of the protocol and never changes its meaning.
Messages say what failed, where, and what to do.
"""

import errno
from typing import ClassVar

__all__ = [
    "AuthenticationFailed",
    "Busy",
    "ClusterError",
    "CorruptChunk",
    "CorruptLog",
    "CorruptSnapshot",
    "DamageError",
    "DeadlineExceeded",
    "DirectoryNotEmpty",
    "FileExists",
    "FileMissing",
    "FileSystemError",
    "FrameTooLarge",
    "InvalidConfig",
    "InvalidPath",
    "IsDirectory",
    "MemberRemoved",
    "MemberRolledBack",
    "MinigfsError",
    "NoCluster",
    "NoQuorum",
    "NoSpace",
    "NotDirectory",
    "NotEnoughChunkservers",
    "NotLeader",
    "OutcomeUnknown",
    "PreconditionFailed",
    "ProtocolError",
    "SecurityError",
    "SessionUnknown",
    "StaleRequest",
    "StartFailed",
    "UnknownRequest",
    "Unreachable",
    "Unsupported",
    "UsageError",
    "WriterFenced",
    "error_from_wire",
]


_by_code: dict[str, type["MinigfsError"]] = {}


class MinigfsError(Exception):
    """Root of the tree. ``code`` names the class on the wire; subclasses register themselves.

    ``hint`` is for programs, and crosses the wire: what to try next (see ``NotLeader``).
    """

    code: ClassVar[str] = "error"
    hint: str = ""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "code" in cls.__dict__:
            known = _by_code.setdefault(cls.code, cls)
            assert known is cls, f"two errors share the wire code {cls.code!r}"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[type["MinigfsError"], tuple[object, ...]]:
        return type(self), (self.message,)


def error_from_wire(code: str, message: str, hint: str = "") -> MinigfsError:
    """The error a peer reported; an unknown code becomes the root class and keeps its name."""
    known = _by_code.get(code)
    error = known(message) if known is not None else MinigfsError(f"{code}: {message}")
    if hint:
        error.hint = hint
    return error


class _OsErrorMixin(MinigfsError, OSError):
    """An error that is also an ``OSError`` with its ``errno``, as callers of open() expect."""

    os_errno: ClassVar[int]

    def __init__(self, message: str) -> None:
        OSError.__init__(self, self.os_errno, message)
        self.message = message

    def __reduce__(self) -> tuple[type[MinigfsError], tuple[object, ...]]:
        return type(self), (self.message,)


class UsageError(MinigfsError):
    code = "usage"


class InvalidPath(UsageError, ValueError):
    code = "invalid-path"


class InvalidConfig(UsageError, ValueError):
    code = "invalid-config"


class Unsupported(UsageError, NotImplementedError):
    code = "unsupported"


class FileSystemError(MinigfsError):
    code = "file-system"


class FileMissing(_OsErrorMixin, FileSystemError, FileNotFoundError):
    code = "file-missing"
    os_errno = errno.ENOENT


class FileExists(_OsErrorMixin, FileSystemError, FileExistsError):
    code = "file-exists"
    os_errno = errno.EEXIST


class IsDirectory(_OsErrorMixin, FileSystemError, IsADirectoryError):
    code = "is-directory"
    os_errno = errno.EISDIR


class NotDirectory(_OsErrorMixin, FileSystemError, NotADirectoryError):
    code = "not-directory"
    os_errno = errno.ENOTDIR


class DirectoryNotEmpty(_OsErrorMixin, FileSystemError):
    code = "directory-not-empty"
    os_errno = errno.ENOTEMPTY


class Busy(_OsErrorMixin, FileSystemError):
    """Nothing happened; the client tries again by itself until its deadline."""

    code = "busy"
    os_errno = errno.EBUSY


class PreconditionFailed(FileSystemError):
    code = "precondition-failed"


class WriterFenced(FileSystemError):
    code = "writer-fenced"


class ClusterError(MinigfsError):
    code = "cluster"


class NoCluster(ClusterError):
    code = "no-cluster"


class Unreachable(_OsErrorMixin, ClusterError, ConnectionError):
    code = "unreachable"
    os_errno = errno.ECONNREFUSED


class DeadlineExceeded(_OsErrorMixin, ClusterError, TimeoutError):
    code = "deadline-exceeded"
    os_errno = errno.ETIMEDOUT


class OutcomeUnknown(ClusterError):
    code = "outcome-unknown"


class NotLeader(ClusterError):
    """``hint`` is the leader's address, if this master knows it."""

    code = "not-leader"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __reduce__(self) -> tuple[type[MinigfsError], tuple[object, ...]]:
        return type(self), (self.message, self.hint)


class MemberRemoved(ClusterError):
    code = "member-removed"


class NoQuorum(ClusterError):
    code = "no-quorum"


class SessionUnknown(ClusterError):
    code = "session-unknown"


class NoSpace(_OsErrorMixin, ClusterError):
    code = "no-space"
    os_errno = errno.ENOSPC


class NotEnoughChunkservers(ClusterError):
    code = "not-enough-chunkservers"


class DamageError(MinigfsError):
    code = "damage"


class CorruptChunk(_OsErrorMixin, DamageError):
    code = "corrupt-chunk"
    os_errno = errno.EIO


class CorruptLog(DamageError):
    code = "corrupt-log"


class CorruptSnapshot(DamageError):
    code = "corrupt-snapshot"


class MemberRolledBack(DamageError):
    code = "member-rolled-back"


class StartFailed(MinigfsError):
    code = "start-failed"


class SecurityError(MinigfsError):
    code = "security"


class AuthenticationFailed(_OsErrorMixin, SecurityError, PermissionError):
    code = "authentication-failed"
    os_errno = errno.EACCES


class ProtocolError(MinigfsError):
    code = "protocol"


class FrameTooLarge(ProtocolError):
    code = "frame-too-large"


class StaleRequest(ProtocolError):
    code = "stale-request"


class UnknownRequest(ProtocolError):
    code = "unknown-request"
