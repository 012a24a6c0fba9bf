"""Files that a task writes beside its part of the output (MapReduce section 4.5), and that are
published with it: exactly those of the attempts that committed.

::

    def map_line(line: bytes):
        if not line.isascii():
            minimr.side_output("strange").write(line + b"\\n")
        ...

Each task's file lies beside the parts, as ``strange-m-00003``. Whatever became of other attempts of
the task, their files are gone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from minimr.errors import JobUsageError

__all__ = ["SideFile", "SideFiles", "side_output", "writing_sides"]


class SideFile(Protocol):
    def write(self, content: bytes, /) -> object:
        """Add bytes to the file."""


class SideFiles(Protocol):
    def file(self, name: str) -> SideFile:
        """The attempt's file of that name."""


_current: ContextVar[SideFiles | None] = ContextVar("minimr_side_files", default=None)


def side_output(name: str) -> SideFile:
    """The running task's side output ``name``; made at the first call.

    Raises `JobUsageError` outside of a task, or for a name that cannot be a file's beside parts.
    """
    files = _current.get()
    if files is None:
        raise JobUsageError("side_output() is for map and reduce functions while a job runs them")
    return files.file(name)


@contextmanager
def writing_sides(files: SideFiles) -> Iterator[None]:
    """Let ``side_output`` lead to ``files`` in this context."""
    token = _current.set(files)
    try:
        yield
    finally:
        _current.reset(token)
