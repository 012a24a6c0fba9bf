"""One command, applied: the only function that changes the file system.

``transition`` is pure and all-or-nothing: a refused command gives back the very state it was
given. It reads no clock, draws no number and walks no set, so a log replays to the same state
everywhere (GFS section 2.6.3; Raft section 2, replicated state machines).
"""

from typing import assert_never

from msgspec.structs import replace as with_fields

from minigfs.errors import InvalidConfig, MinigfsError, WriterFenced
from minigfs.ids import ChunkHandle, FileId
from minigfs.master import commands, policy, transactions, trash
from minigfs.master.chunks import (
    allocate_chunks,
    check_sealed_chunks,
    discard_chunks,
    file_digest,
    forget_garbage,
    seal_chunks,
)
from minigfs.master.clone import begin_clone, clone_some
from minigfs.master.growth import append_chunk, seal_chunk
from minigfs.master.history import TenureMark
from minigfs.master.namespace import (
    TRASH_NAME,
    add_file,
    check_can_publish,
    find_inode,
    get_inode,
    is_in_trash,
    join_path,
    make_directory,
    make_missing_parents,
    move,
    path_of,
    remove_entry,
    split_path,
    split_writable,
)
from minigfs.master.patches import patch_file
from minigfs.master.removal import condemn, condemned_file, condemned_inode, reap
from minigfs.master.replica_sets import adjust_replicas, place_servers, set_draining
from minigfs.master.state import (
    NO_PATH,
    Condemned,
    DirectoryInode,
    FileInode,
    FileSystemState,
    TemporaryFile,
)

__all__ = ["get_temporary", "transition"]

_Outcome = tuple[FileSystemState, commands.CommandReply]
_Gone = list[tuple[FileId, Condemned]]  # what a command has condemned


def transition(state: FileSystemState, command: commands.Command) -> _Outcome:
    """The state after a command, and its reply; after ``Refused``, the state before it."""
    gone: _Gone = []
    try:
        after, reply = _apply(state, command, gone)
    except MinigfsError as refusal:
        return state, commands.Refused(refusal.code, refusal.message)
    return condemn(after, gone) if gone else after, reply


def get_temporary(state: FileSystemState, file_id: FileId) -> TemporaryFile:
    file = state.temporary.get(file_id)
    if file is None:
        raise WriterFenced(
            f"file {file_id} is not being written: its writer was silent too long, or gave it up, "
            "or the file was published and is gone since; write it again"
        )
    return file


def _apply(state: FileSystemState, command: commands.Command, gone: _Gone) -> _Outcome:
    match command:
        case commands.PublishFile():
            return _publish(state, command, gone)
        case commands.CreateFile():
            return _create_to_write(state, command)
        case commands.CreateEmptyFile():
            return _create_empty(state, command, gone)
        case commands.CreateSpareFiles():
            return _create_spares(state, command)
        case commands.AllocateChunks():
            file = get_temporary(state, command.file_id)
            state, handles = allocate_chunks(state, file, command.first_index, command.replica_sets)
            return state, commands.ChunksAllocated(handles)
        case commands.MakeDirectory():
            return _make_directory(state, command), commands.Done()
        case commands.Rename():
            return _rename(state, command, gone), commands.Done()
        case commands.Remove():
            return _remove(state, command, gone)
        case commands.DiscardFiles():
            return _discard(state, command, gone), commands.Done()
        case commands.ForgetGarbage():
            return forget_garbage(state, command.handles), commands.Done()
        case commands.Reap():
            return reap(state), commands.Done()
        case commands.BeginTenure():
            mark = TenureMark(command.term, command.first_index, command.nonce)
            return with_fields(state, tenures=(*state.tenures, mark)), commands.Done()
        case commands.AdjustReplicas():
            return adjust_replicas(state, command.changes), commands.Done()
        case commands.SetDraining():
            return set_draining(state, command), commands.Done()
        case commands.PlaceServers():
            return place_servers(state, command.places), commands.Done()
        case commands.Configure():
            return _configure(state, command), commands.Done()
        case commands.Transact():
            return transactions.transact(state, command, lambda s, one: _apply(s, one, gone))
        case commands.TakeToken():
            return transactions.take_token(state, command)
        case commands.Undelete():
            state = trash.undelete(state, command.path, command.target, command.now_ms)
            return state, commands.Done()
        case commands.ExpireTrash():
            return _expire(state, command, gone), commands.Done()
        case commands.SetPolicy():
            return policy.set_policy(state, command), commands.Done()
        case commands.SetReplication():
            return policy.set_replication(state, command), commands.Done()
        case commands.Clone():
            return begin_clone(state, command, gone)
        case commands.CloneStep():
            return clone_some(state, gone), commands.Done()
        case commands.AppendChunk():
            state, handle = append_chunk(state, command)
            return state, commands.ChunkAppended(handle)
        case commands.SealChunk():
            return seal_chunk(state, command), commands.Done()
        case commands.PatchFile():
            return patch_file(state, command), commands.Done()
        case _:
            assert_never(command)


def _configure(state: FileSystemState, command: commands.Configure) -> FileSystemState:
    if state.config is not None and state.config != command.config:
        raise InvalidConfig(
            f"the file system was made with {state.config} and cannot become {command.config}: "
            "start it with the values it was made with, or in another directory"
        )
    return with_fields(state, config=command.config)


def _make_directory(state: FileSystemState, command: commands.MakeDirectory) -> FileSystemState:
    return make_directory(
        state,
        split_writable(command.path),
        parents=command.parents,
        exist_ok=command.exist_ok,
        now_ms=command.now_ms,
    )


def _create(
    state: FileSystemState, command: commands.CreateFile | commands.CreateEmptyFile
) -> tuple[FileSystemState, TemporaryFile]:
    parts = split_writable(command.path)
    check_can_publish(state, parts, exclusive=command.exclusive)
    goal = command.replication or policy.replication_for(state, parts)
    policy.check_replication(goal)
    return _add_temporary(state, command.path, command.now_ms, goal)


def _add_temporary(
    state: FileSystemState, path: str, now_ms: int, goal: int
) -> tuple[FileSystemState, TemporaryFile]:
    file_id = state.next_file_id
    file = TemporaryFile(file_id, path, now_ms, goal, ())
    state = with_fields(
        state,
        temporary=state.temporary.set(file_id, file),
        next_file_id=FileId(file_id + 1),
    )
    return state, file


def _create_spares(state: FileSystemState, command: commands.CreateSpareFiles) -> _Outcome:
    policy.check_replication(command.replication)
    created: list[tuple[FileId, ChunkHandle]] = []
    for replicas in command.replica_sets:
        state, file = _add_temporary(state, NO_PATH, command.now_ms, command.replication)
        state, (handle,) = allocate_chunks(state, file, 0, (replicas,))
        created.append((file.file_id, handle))
    return state, commands.SpareFilesCreated(tuple(created))


def _create_to_write(state: FileSystemState, command: commands.CreateFile) -> _Outcome:
    state, file = _create(state, command)
    handles: tuple[ChunkHandle, ...] = ()
    if command.replica_sets:
        state, handles = allocate_chunks(state, file, 0, command.replica_sets)
    return state, commands.FileCreated(file.file_id, file.replication, handles)


def _create_empty(
    state: FileSystemState, command: commands.CreateEmptyFile, gone: _Gone
) -> _Outcome:
    state, file = _create(state, command)
    publish = commands.PublishFile(
        command.now_ms, file.file_id, command.path, (), command.exclusive
    )
    return _publish(state, publish, gone)


def _publish(state: FileSystemState, command: commands.PublishFile, gone: _Gone) -> _Outcome:
    parts = split_writable(command.path)
    published = state.inodes.get(command.file_id)
    path = None if published is None else path_of(state, published)
    if isinstance(published, FileInode) and path and not is_in_trash(split_path(path)):
        return state, _published_reply(path, published)
    file = get_temporary(state, command.file_id)
    check_can_publish(state, parts, exclusive=command.exclusive)
    check_sealed_chunks(state, file, command.chunks)
    state = make_missing_parents(state, parts, command.now_ms)
    parent = find_inode(state, parts[:-1])
    assert isinstance(parent, DirectoryInode)
    inode = FileInode(
        file_id=file.file_id,
        parent_id=parent.file_id,
        name=parts[-1],
        created_ms=command.now_ms if file.path == NO_PATH else file.created_ms,
        modified_ms=command.now_ms,
        replication=file.replication,
        size_bytes=sum(chunk.length_bytes for chunk in command.chunks),
        digest=file_digest([chunk.digest for chunk in command.chunks]),
        chunks=tuple(chunk.handle for chunk in command.chunks),
    )
    state, replaced = add_file(state, inode, command.now_ms)
    state = seal_chunks(state, command.chunks)
    state = discard_chunks(state, file.chunks[len(command.chunks) :])
    _note_replaced(replaced, gone)
    state = with_fields(state, temporary=state.temporary.delete(file.file_id))
    return state, _published_reply(command.path, inode)


def _note_replaced(replaced: FileInode | None, gone: _Gone) -> None:
    if replaced is not None:
        gone.append(condemned_inode(replaced))


def _published_reply(path: str, inode: FileInode) -> commands.FilePublished:
    return commands.FilePublished(
        path=path,
        size_bytes=inode.size_bytes,
        created_ms=inode.created_ms,
        modified_ms=inode.modified_ms,
        replication=inode.replication,
        chunk_count=len(inode.chunks),
        digest=inode.digest,
        file_id=inode.file_id,
    )


def _discard(
    state: FileSystemState, command: commands.DiscardFiles, gone: _Gone
) -> FileSystemState:
    found = [state.temporary.get(file_id) for file_id in dict.fromkeys(command.file_ids)]
    discarded = [file for file in found if file is not None]
    temporary = state.temporary.mutate()
    for file in discarded:
        del temporary[file.file_id]
    gone += [condemned_file(file.file_id, file.chunks) for file in discarded]
    return with_fields(state, temporary=temporary.finish())


def _rename(state: FileSystemState, command: commands.Rename, gone: _Gone) -> FileSystemState:
    source, target = split_path(command.source), split_writable(command.target)
    inode = get_inode(state, source)
    state, replaced = move(state, source, target, replace=command.replace, now_ms=command.now_ms)
    _note_replaced(replaced, gone)
    return trash.forget_trashed(state, inode)


def _remove(state: FileSystemState, command: commands.Remove, gone: _Gone) -> _Outcome:
    parts = split_path(command.path)
    keep_ms = 0
    if command.keep_ms and not is_in_trash(parts):
        keep_ms = policy.retention_for(state, get_inode(state, parts), command.keep_ms)
    now_ms = command.now_ms
    state, removed, file_count, directory_count = remove_entry(
        state, parts, recursive=command.recursive, now_ms=now_ms
    )
    if keep_ms:
        path = join_path(parts)
        state = trash.keep_removed(state, removed, path, keep_ms=keep_ms, now_ms=now_ms)
    else:
        state = trash.forget_trashed(state, removed)
        gone.append(condemned_inode(removed))
    return state, commands.EntriesRemoved(file_count, directory_count)


def _expire(state: FileSystemState, command: commands.ExpireTrash, gone: _Gone) -> FileSystemState:
    for _ in range(command.count_max):
        due = trash.next_to_expire(state)
        if due is None or due[1] > command.kept_until_ms:
            break
        name = state.inodes[due[0]].name
        parts = (TRASH_NAME, name)
        state, removed, _, _ = remove_entry(state, parts, recursive=True, now_ms=command.now_ms)
        state = trash.forget_trashed(state, removed)
        gone.append(condemned_inode(removed))
    return state
