"""Answers what changes the tree of names, and what it asks of its trash and its policies.

Each change is one command of the log. A clone of many files takes several; whoever waits for it
here proposes them one by one, and if nobody waits any more ``Housekeeping`` does.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar, assert_never

from minigfs.errors import FileMissing, error_from_wire
from minigfs.ids import FileId, Origin
from minigfs.master import commands
from minigfs.master.listing import PAGE_ENTRIES_MAX
from minigfs.master.messages import (
    CreateEmptyFile,
    EntryKind,
    FileStatus,
    MakeDirectory,
    PublishFile,
    Remove,
    Removed,
    Rename,
)
from minigfs.master.namespace import (
    TRASH_NAME,
    get_inode,
    split_path,
)
from minigfs.master.policy import check_retention, policy_at
from minigfs.master.state import (
    TRASH_ID,
    Cloning,
    DirectoryInode,
    FileInode,
    FileSystemState,
    Policy,
)
from minigfs.master.tree_messages import (
    CLONE_WAIT_MS,
    AwaitClone,
    Clone,
    Cloned,
    GetPolicy,
    ListTrash,
    PolicyReport,
    SetPolicy,
    SetReplication,
    TakeToken,
    Token,
    Transact,
    Transacted,
    TrashEntry,
    TrashListing,
    Undelete,
)
from minigfs.ports import Clock
from minigfs.transport.control_server import ControlHandler
from minigfs.transport.messages import Empty, Request

__all__ = ["RETENTION_MS", "TreeHost", "TreeService", "publish_command", "published_status"]

RETENTION_MS = 3 * 24 * 3_600_000  # where no policy says otherwise; the paper's three days

_ReplyT = TypeVar("_ReplyT", bound=commands.CommandReply)


class TreeHost(Protocol):
    """What the service of the whole file system offers to this part of it."""

    @property
    def state(self) -> FileSystemState: ...

    def require_leading(self) -> None:
        """``NotLeader`` unless this master leads and has made its soft state."""
        ...

    async def readable(self, *, stale_ok: bool) -> None: ...

    async def propose(
        self, command: commands.Command, expected: type[_ReplyT], origin: Origin | None = None
    ) -> _ReplyT: ...

    async def seal_below(self, path: str) -> None:
        """Seal what is open for appending at and below a path."""
        ...

    def note_published(self, request: PublishFile) -> None:
        """Its writer was heard of, and its chunks are on the servers that it names."""
        ...

    def note_moved(self, path: str) -> None:
        """What stands there had another path."""
        ...

    def note_replication_set(self, request: SetReplication) -> None:
        """Its files ask for another number of replicas now."""
        ...


def publish_command(request: PublishFile, now_ms: int) -> commands.PublishFile:
    sealed = tuple(
        commands.SealedReplicas(c.handle, c.length_bytes, c.digest, c.replicas)
        for c in request.chunks
    )
    return commands.PublishFile(now_ms, request.file_id, request.path, sealed, request.exclusive)


class TreeService:
    """Belongs to the event loop."""

    def __init__(self, host: TreeHost, clock: Clock) -> None:
        self._host = host
        self._clock = clock

    def handlers(self) -> Mapping[type[Request[Any]], ControlHandler]:
        return {
            CreateEmptyFile: self._create_empty,
            MakeDirectory: self._simple,
            Rename: self._simple,
            SetPolicy: self._simple,
            SetReplication: self._simple,
            Undelete: self._simple,
            Remove: self._remove,
            Transact: self._transact,
            TakeToken: self._take_token,
            Clone: self._clone,
            AwaitClone: self._await_clone,
            ListTrash: self._list_trash,
            GetPolicy: self._get_policy,
        }

    async def _create_empty(self, request: CreateEmptyFile) -> FileStatus:
        self._host.require_leading()
        command = commands.CreateEmptyFile(
            self._clock.now_ms(), request.path, request.exclusive, request.replication or 0
        )
        reply = await self._host.propose(command, commands.FilePublished, request.origin)
        return published_status(reply.file_id, reply)

    async def _simple(
        self, request: MakeDirectory | Rename | SetPolicy | SetReplication | Undelete
    ) -> Empty:
        self._host.require_leading()
        await self._host.propose(self._command_of(request), commands.Done, request.origin)
        if isinstance(request, Rename | Undelete):
            self._host.note_moved(request.target)
        if isinstance(request, SetReplication):
            self._host.note_replication_set(request)
        return Empty()

    async def _remove(self, request: Remove) -> Removed:
        self._host.require_leading()
        command = self._command_of(request)
        reply = await self._host.propose(command, commands.EntriesRemoved, request.origin)
        return Removed(file_count=reply.file_count, directory_count=reply.directory_count)

    def _command_of(
        self,
        request: MakeDirectory | Rename | SetPolicy | SetReplication | Undelete | Remove,
    ) -> commands.Command:
        now_ms = self._clock.now_ms()
        match request:
            case MakeDirectory():
                return commands.MakeDirectory(
                    now_ms, request.path, request.parents, request.exist_ok
                )
            case Rename():
                return commands.Rename(now_ms, request.source, request.target, request.replace)
            case SetPolicy():
                check_retention(request.retention_ms)
                return commands.SetPolicy(
                    now_ms, request.path, request.replication, request.retention_ms
                )
            case SetReplication():
                return commands.SetReplication(
                    now_ms, request.paths, request.replication, request.first_index
                )
            case Undelete():
                return commands.Undelete(now_ms, request.path, request.target)
            case Remove():
                keep_ms = 0 if request.now else RETENTION_MS
                return commands.Remove(now_ms, request.path, request.recursive, keep_ms)
            case _:
                assert_never(request)

    async def _transact(self, request: Transact) -> Transacted:
        self._host.require_leading()
        now_ms = self._clock.now_ms()
        publishes = [one for one in request.changes if isinstance(one, PublishFile)]
        command = commands.Transact(
            now_ms,
            tuple(
                commands.Condition(c.path, c.file_id, c.modified_ms, c.size_bytes)
                for c in request.conditions
            ),
            tuple(self._part_of(one) for one in request.changes),
            (request.fence_path, request.fence_token) if request.fence_path else None,
        )
        reply = await self._host.propose(command, commands.Transacted, request.origin)
        for one in request.changes:
            if isinstance(one, PublishFile):
                self._host.note_published(one)
            elif isinstance(one, Rename):
                self._host.note_moved(one.target)
        return Transacted(
            published=tuple(
                published_status(one.file_id, published)
                for one, published in zip(publishes, reply.published, strict=True)
            )
        )

    def _part_of(
        self, one: MakeDirectory | PublishFile | Rename | Remove | SetPolicy
    ) -> commands.Change:
        if isinstance(one, PublishFile):
            return publish_command(one, self._clock.now_ms())
        command = self._command_of(one)
        assert isinstance(command, commands.Change)
        return command

    async def _take_token(self, request: TakeToken) -> Token:
        self._host.require_leading()
        command = commands.TakeToken(self._clock.now_ms(), request.path)
        reply = await self._host.propose(command, commands.TokenTaken, request.origin)
        return Token(token=reply.token)

    # Clones.

    async def _clone(self, request: Clone) -> Cloned:
        self._host.require_leading()
        await self._host.seal_below(request.source)
        command = commands.Clone(
            self._clock.now_ms(), request.source, request.target, request.replace
        )
        reply = await self._host.propose(command, commands.CloneBegun, request.origin)
        is_done = reply.is_done or await self._carry_on(reply.copy_id)
        return Cloned(copy_id=reply.copy_id, is_done=is_done)

    async def _await_clone(self, request: AwaitClone) -> Cloned:
        self._host.require_leading()
        await self._host.readable(stale_ok=False)
        is_done = await self._carry_on(request.copy_id)
        return Cloned(copy_id=request.copy_id, is_done=is_done)

    async def _carry_on(self, copy_id: FileId) -> bool:
        """Take steps of a clone for a while; whether it is done then."""
        until_ms = self._clock.monotonic_ms() + CLONE_WAIT_MS
        while (clone := self._clone_of(copy_id)).waiting:
            if self._clock.monotonic_ms() >= until_ms:
                return False
            await self._host.propose(commands.CloneStep(self._clock.now_ms()), commands.Done)
            await asyncio.sleep(0)
        if clone.refused_code:
            raise error_from_wire(clone.refused_code, clone.refused_message)
        return True

    def _clone_of(self, copy_id: FileId) -> Cloning:
        clone = self._host.state.cloning.get(copy_id)
        if clone is None:
            raise FileMissing(f"nothing is known of clone {copy_id} (any more): look at its target")
        return clone

    # What can be read.

    async def _list_trash(self, request: ListTrash) -> TrashListing:
        await self._host.readable(stale_ok=request.stale_ok)
        return trash_page(self._host.state, request.path, request.start_after, request.limit)

    async def _get_policy(self, request: GetPolicy) -> PolicyReport:
        await self._host.readable(stale_ok=request.stale_ok)
        state = self._host.state
        assert state.config is not None, "the first entry of the log configures the file system"
        inode = get_inode(state, split_path(request.path))
        own, whole = state.policies.get(inode.file_id, Policy()), policy_at(state, inode)
        is_file = isinstance(inode, FileInode)
        inherited = state.config.replication if whole.replication is None else whole.replication
        return PolicyReport(
            path=request.path,
            replication=inode.replication if isinstance(inode, FileInode) else inherited,
            retention_ms=RETENTION_MS if whole.retention_ms is None else whole.retention_ms,
            own_replication=None if is_file else own.replication,
            own_retention_ms=None if is_file else own.retention_ms,
        )


def published_status(file_id: FileId, reply: commands.FilePublished) -> FileStatus:
    return FileStatus(
        path=reply.path,
        file_id=file_id,
        kind=EntryKind.FILE,
        size_bytes=reply.size_bytes,
        created_ms=reply.created_ms,
        modified_ms=reply.modified_ms,
        replication=reply.replication,
        chunk_count=reply.chunk_count,
        digest=reply.digest,
    )


def trash_page(state: FileSystemState, path: str, start_after: str, limit: int) -> TrashListing:
    """A page looks at a bounded part of the trash, however little of it lay below the path."""
    root = state.inodes[TRASH_ID]
    assert isinstance(root, DirectoryInode)
    prefix = "/".join(("", *split_path(path), ""))
    entries: list[TrashEntry] = []
    seen = start_after
    for looked_at, (name, file_id) in enumerate(root.children.items_from(start_after)):
        if name == start_after:
            continue
        if len(entries) >= max(1, limit) or looked_at > PAGE_ENTRIES_MAX:
            return TrashListing(entries=tuple(entries), more=True, next_after=seen)
        seen = name
        trashed, inode = state.trash[file_id], state.inodes[file_id]
        if (trashed.path + "/").startswith(prefix):
            is_file = isinstance(inode, FileInode)
            entries.append(
                TrashEntry(
                    path=trashed.path,
                    trash_path=f"/{TRASH_NAME}/{name}",
                    kind=EntryKind.FILE if is_file else EntryKind.DIRECTORY,
                    file_count=1 if isinstance(inode, FileInode) else inode.file_count,
                    size_bytes=inode.size_bytes if isinstance(inode, FileInode) else 0,
                    removed_ms=trashed.removed_ms,
                    kept_until_ms=trashed.kept_until_ms,
                )
            )
    return TrashListing(entries=tuple(entries), more=False, next_after="")
