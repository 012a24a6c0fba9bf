"""Files that every task of a job can read: ``Job(files=("stopwords.txt",))``.

::

    class CountWords:
        def setup(self) -> None:
            self.stopwords = set(minimr.file("stopwords.txt").read_bytes().split())

        def __call__(self, line: bytes): ...

A file is named by the last part of its path or URL. A task gets the path of a copy on its own
machine with the bytes that the file had when the job was submitted; if those are gone by then, the
task fails.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from minimr.errors import JobUsageError

__all__ = ["file", "having_files"]

_current: ContextVar[Callable[[str], Path] | None] = ContextVar("minimr_files", default=None)


def file(name: str) -> Path:
    """The path of the job's file ``name``, to be read only.

    Raises `JobUsageError` outside of a task, or for a name that is not among the job's ``files``.
    """
    find = _current.get()
    if find is None:
        raise JobUsageError("file() is for map and reduce functions while a job runs them")
    return find(name)


@contextmanager
def having_files(find: Callable[[str], Path]) -> Iterator[None]:
    """Let `file` answer with ``find`` until the block ends."""
    token = _current.set(find)
    try:
        yield
    finally:
        _current.reset(token)
