"""Errors cross processes and wires as themselves, and are the ``OSError`` callers expect."""

import errno
import pickle

import pytest

from minigfs import errors
from minigfs.errors import MinigfsError, error_from_wire

CLASSES = sorted(
    {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, MinigfsError) and "code" in vars(value)
    },
    key=lambda cls: cls.__name__,
)


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_comes_back_from_the_wire_as_its_class(cls: type[MinigfsError]) -> None:
    if cls is MinigfsError:
        return
    back = error_from_wire(cls.code, "disk /d is full")
    assert type(back) is cls
    assert str(back) == back.message == "disk /d is full"


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_survives_pickling(cls: type[MinigfsError]) -> None:
    back = pickle.loads(pickle.dumps(cls("what and where")))
    assert type(back) is cls
    assert str(back) == "what and where"


def test_codes_are_distinct() -> None:
    assert len({cls.code for cls in CLASSES}) == len(CLASSES)


def test_an_unknown_code_keeps_its_name() -> None:
    back = error_from_wire("from-the-future", "something")
    assert type(back) is MinigfsError
    assert str(back) == "from-the-future: something"


@pytest.mark.parametrize(
    ("cls", "builtin", "number"),
    [
        (errors.FileMissing, FileNotFoundError, errno.ENOENT),
        (errors.FileExists, FileExistsError, errno.EEXIST),
        (errors.IsDirectory, IsADirectoryError, errno.EISDIR),
        (errors.NotDirectory, NotADirectoryError, errno.ENOTDIR),
        (errors.DirectoryNotEmpty, OSError, errno.ENOTEMPTY),
        (errors.Unreachable, ConnectionError, errno.ECONNREFUSED),
        (errors.DeadlineExceeded, TimeoutError, errno.ETIMEDOUT),
        (errors.NoSpace, OSError, errno.ENOSPC),
        (errors.CorruptChunk, OSError, errno.EIO),
        (errors.AuthenticationFailed, PermissionError, errno.EACCES),
    ],
)
def test_errors_that_open_raises_are_os_errors(
    cls: type[MinigfsError], builtin: type[OSError], number: int
) -> None:
    error = cls("m")
    assert isinstance(error, builtin)
    assert error.errno == number
