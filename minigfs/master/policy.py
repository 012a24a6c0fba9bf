"""What a part of the tree asks for: replicas of its files, how long what is removed is kept (GFS
sections 2.6.1, 4.4).

A policy belongs to a directory and holds for all below it, but for what a directory further down
says otherwise. It decides when a file is made or removed; files that are there keep the goal they
were made with, until ``SetReplication`` changes it, a bounded number of chunks at a time.
"""

from msgspec.structs import replace as with_fields

from minigfs.errors import IsDirectory, NotDirectory, UsageError
from minigfs.master import commands
from minigfs.master.namespace import check_not_cloned, find_inode, get_inode, split_path
from minigfs.master.state import DirectoryInode, FileInode, FileSystemState, Inode, Policy
from minigfs.master.tree_messages import CHUNKS_PER_STEP_MAX

__all__ = [
    "REPLICATION_MAX",
    "check_replication",
    "check_retention",
    "policy_at",
    "replication_for",
    "retention_for",
    "set_policy",
    "set_replication",
]

REPLICATION_MAX = 16  # more copies than that is a typing error
RETENTION_DAYS_MAX = 365_000  # a thousand years, all of which calendars have
UNSET = -1


def check_replication(replication: int) -> None:
    if not 1 <= replication <= REPLICATION_MAX:
        raise UsageError(f"a file has 1 to {REPLICATION_MAX} replicas, not {replication}")


def check_retention(retention_ms: int | None) -> None:
    """Before it is logged: with a time that no snapshot can hold a master could write none."""
    if retention_ms is not None and retention_ms > RETENTION_DAYS_MAX * 86_400_000:
        raise UsageError(
            f"{retention_ms} ms is too long to keep what is removed: at most "
            f"{RETENTION_DAYS_MAX} days go"
        )


def policy_at(state: FileSystemState, inode: Inode) -> Policy:
    """What holds in a directory, or where a file stands; what nobody says is None."""
    replication: int | None = None
    retention_ms: int | None = None
    while state.policies:
        policy = state.policies.get(inode.file_id)
        if policy is not None:
            replication = policy.replication if replication is None else replication
            retention_ms = policy.retention_ms if retention_ms is None else retention_ms
        if inode.parent_id == inode.file_id:
            break
        inode = state.inodes[inode.parent_id]
    return Policy(replication, retention_ms)


def replication_for(state: FileSystemState, parts: tuple[str, ...]) -> int:
    """The goal of a file that is made at a path, whose parents may be missing."""
    assert state.config is not None, "the first entry of the log configures the file system"
    above: Inode | None = None
    depth = len(parts) - 1
    while state.policies and above is None:
        above = find_inode(state, parts[:depth])
        depth -= 1
    wanted = None if above is None else policy_at(state, above).replication
    return state.config.replication if wanted is None else wanted


def retention_for(state: FileSystemState, inode: Inode, default_ms: int) -> int:
    """How long an inode is kept when it is removed; nothing to lose is not kept."""
    if isinstance(inode, DirectoryInode) and not len(inode.children):
        return 0
    wanted_ms = policy_at(state, inode).retention_ms
    return default_ms if wanted_ms is None else wanted_ms


def set_policy(state: FileSystemState, command: commands.SetPolicy) -> FileSystemState:
    inode = get_inode(state, split_path(command.path))
    if not isinstance(inode, DirectoryInode):
        raise NotDirectory(f"{command.path} is a file: a policy is a directory's")
    check_not_cloned(state, inode)
    if command.replication not in (None, UNSET):
        check_replication(command.replication)
    if command.retention_ms is not None and command.retention_ms < UNSET:
        raise UsageError(f"{command.retention_ms} ms is no time to keep what is removed")
    old = state.policies.get(inode.file_id, Policy())
    new = Policy(
        _changed(old.replication, command.replication),
        _changed(old.retention_ms, command.retention_ms),
    )
    policies = state.policies
    if new != Policy():
        policies = policies.set(inode.file_id, new)
    elif inode.file_id in policies:
        policies = policies.delete(inode.file_id)
    return with_fields(state, policies=policies)


def _changed(old: int | None, new: int | None) -> int | None:
    if new is None:
        return old
    return None if new == UNSET else new


def set_replication(state: FileSystemState, command: commands.SetReplication) -> FileSystemState:
    """Give files, and some of their chunks, another goal.

    A chunk that other files have, too, is only ever given a higher one: they may need it.
    """
    check_replication(command.replication)
    files = [_get_file(state, path) for path in command.paths]
    count = sum(len(file.chunks[command.first_index :]) + 1 for file in files)
    if len(files) == 1:
        count = min(count, CHUNKS_PER_STEP_MAX)
    if count > CHUNKS_PER_STEP_MAX:
        raise UsageError(f"{count} files and chunks are too many for one step: name fewer files")
    inodes, chunks = state.inodes.mutate(), state.chunks.mutate()
    for file in files:
        inodes[file.file_id] = with_fields(file, replication=command.replication)
        for handle in file.chunks[command.first_index :][:CHUNKS_PER_STEP_MAX]:
            chunk, goal = chunks[handle], command.replication
            if handle in state.shared:
                goal = max(goal, chunk.replication)
            chunks[handle] = with_fields(chunk, replication=goal)
    return with_fields(state, inodes=inodes.finish(), chunks=chunks.finish())


def _get_file(state: FileSystemState, path: str) -> FileInode:
    inode = get_inode(state, split_path(path))
    if not isinstance(inode, FileInode):
        raise IsDirectory(f"{path} is a directory: name the files in it, or set its policy")
    check_not_cloned(state, inode)
    return inode
