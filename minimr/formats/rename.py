"""Renames of the local file system that rename(2) cannot express: never replacing, and exchanging.

Linux has them as renameat2(2). Where the kernel or the file system lacks it, `rename_exclusive`
falls back to rename(2), which for directories refuses any target but an empty directory, and
`exchange` says it cannot.
"""

import ctypes
import errno
import functools
import os
from pathlib import Path

__all__ = ["exchange", "rename_exclusive"]

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})


def rename_exclusive(source: str, target: str) -> None:
    """Move ``source`` to ``target`` by one atomic change; `FileExistsError` if there is one."""
    code = _renameat2(source, target, _RENAME_NOREPLACE)
    if code in _UNSUPPORTED:
        _rename_if_absent(source, target)
    elif code:
        raise OSError(code, os.strerror(code), source, None, target)


def exchange(first: str, second: str) -> bool:
    """Swap two paths by one atomic change; false where that is not possible."""
    code = _renameat2(first, second, _RENAME_EXCHANGE)
    if code in _UNSUPPORTED:
        return False
    if code:
        raise OSError(code, os.strerror(code), first, None, second)
    return True


def _rename_if_absent(source: str, target: str) -> None:
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    Path(source).rename(target)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _renameat2(source: str, target: str, flags: int) -> int:
    """The errno of renameat2(2), 0 for success."""
    try:
        call = _libc().renameat2
    except AttributeError:  # a C library older than the system call
        return errno.ENOSYS
    ctypes.set_errno(0)
    failed = call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags)
    return ctypes.get_errno() if failed else 0
