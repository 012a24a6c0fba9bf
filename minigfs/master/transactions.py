"""Several changes as one: all of them or none (DESIGN 6.8).

A transaction first looks whether the tree is as its client believes it to be, then makes its
changes one after the other, each in the tree that the one before it left; the first that is
refused refuses all. The state is a value, so there is nothing to undo.

A fencing token is a number of a directory that only grows. Whoever takes one is told a number
higher than all before it, and a transaction that names the directory with an earlier token is
refused: the one who held it has been superseded, however late its request arrives. The token
belongs to the directory's inode: it moves with it, and is gone with it.
"""

from collections.abc import Callable

from msgspec.structs import replace as with_fields

from minigfs.errors import NotDirectory, PreconditionFailed, UsageError, WriterFenced
from minigfs.master import commands
from minigfs.master.namespace import find_inode, get_inode, split_path
from minigfs.master.state import DirectoryInode, FileInode, FileSystemState

__all__ = ["CHANGES_MAX", "SEALED_CHUNKS_MAX", "take_token", "transact"]

CHANGES_MAX = 1_000
SEALED_CHUNKS_MAX = 20_000  # of all files it publishes: a terabyte

_Change = Callable[
    [FileSystemState, commands.Command], tuple[FileSystemState, commands.CommandReply]
]


def transact(
    state: FileSystemState, command: commands.Transact, change: _Change
) -> tuple[FileSystemState, commands.Transacted]:
    """``change`` applies one command, or raises its refusal."""
    sealed_count = sum(
        len(one.chunks) for one in command.changes if isinstance(one, commands.PublishFile)
    )
    if len(command.changes) > CHANGES_MAX or sealed_count > SEALED_CHUNKS_MAX:
        raise UsageError(
            f"{len(command.changes)} changes with {sealed_count} chunks are too many for one "
            f"transaction: at most {CHANGES_MAX} with {SEALED_CHUNKS_MAX} go"
        )
    if command.fence is not None:
        _check_fence(state, *command.fence)
    for condition in command.conditions:
        _check(state, condition)
    published = []
    for one in command.changes:
        state, reply = change(state, one)
        if isinstance(reply, commands.FilePublished):
            published.append(reply)
    return state, commands.Transacted(tuple(published))


def take_token(
    state: FileSystemState, command: commands.TakeToken
) -> tuple[FileSystemState, commands.TokenTaken]:
    directory = _directory_at(state, command.path)
    token = state.fences.get(directory.file_id, 0) + 1
    state = with_fields(state, fences=state.fences.set(directory.file_id, token))
    return state, commands.TokenTaken(token)


def _check_fence(state: FileSystemState, path: str, token: int) -> None:
    latest = state.fences.get(_directory_at(state, path).file_id, 0)
    if token != latest:
        raise WriterFenced(
            f"token {token} of {path} holds no more: {latest} was taken since by another; "
            "nothing was changed"
        )


def _directory_at(state: FileSystemState, path: str) -> DirectoryInode:
    inode = get_inode(state, split_path(path))
    if not isinstance(inode, DirectoryInode):
        raise NotDirectory(f"{path} is a file: fencing tokens are a directory's")
    return inode


def _check(state: FileSystemState, condition: commands.Condition) -> None:
    path = condition.path
    inode = find_inode(state, split_path(path))
    if inode is None:
        if condition.file_id != 0:
            raise PreconditionFailed(f"{path} is not there any more; nothing was changed")
    elif condition.file_id == 0:
        raise PreconditionFailed(f"{path} exists by now; nothing was changed")
    elif condition.file_id is not None:
        size_bytes = inode.size_bytes if isinstance(inode, FileInode) else 0
        seen = (condition.file_id, condition.modified_ms, condition.size_bytes)
        if (inode.file_id, inode.modified_ms, size_bytes) != seen:
            raise PreconditionFailed(f"{path} was changed or replaced; nothing was changed")
