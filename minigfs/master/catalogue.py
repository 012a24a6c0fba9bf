"""Names for the chunks: what a chunkserver is told, so that chunks alone can be rescued.

A chunk file says which file and which part of it it is; what it cannot know is whether that file
was ever published, how many chunks it has, and what it is called now. So the leading master tells
each server, in batches on the replies to its heartbeats::

    published, renamed --> at once          every file --> in *passes* over the tree, at leisure

A pass makes good whatever a lost batch, another leader or the renaming of a large directory left
untold. It is begun when something may have changed, takes a bounded part of the master's time, and
ends with a mark: a server that heard all of it may forget the files it did not name. Soft state,
belongs to one term of leadership; stamps grow from term to term. Pure.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from minigfs.ids import ChunkHandle, ChunkserverId, FileId
from minigfs.master.chunks import file_digest
from minigfs.master.heartbeat_messages import CatalogueBatch, CataloguedFile
from minigfs.master.listing import find_page
from minigfs.master.messages import (
    EntryKind,
    FileStatus,
)
from minigfs.master.namespace import TRASH_NAME, find_inode, path_of, split_path
from minigfs.master.state import FileInode, FileSystemState

__all__ = ["BATCH_FILES_MAX", "CatalogueFeed"]

BATCH_FILES_MAX = 1_000  # of one reply: a millisecond of the master, 150 KB on the wire
STEP_FILES_MAX = 1_000  # of one step of a pass: ten milliseconds of the master, once a second
STEP_CHUNKS_MAX = 20_000  # of all its files, the last of which is told whole: as long
QUEUE_FILES_MAX = 4 * BATCH_FILES_MAX  # a server that takes no more holds up the pass
PASS_PAUSE_MS = 10_000
PAUSE_MS_PER_STEP = 4_000  # four times as long as the pass took
RUNS_MAX = 200  # of chunks, of one file
_TRASH_PATH = f"/{TRASH_NAME}"
_TERM_SHIFT = 40  # stamps of one term, before those of the next begin


@dataclass(slots=True)
class _Server:
    """What one chunkserver is still to be told."""

    queue: deque[CataloguedFile] = field(default_factory=deque)
    sent: CatalogueBatch | None = None  # and not known to have arrived
    last_heard_ms: int = 0
    has_taken: bool = False
    missed: bool = True  # something of the pass that is under way


class CatalogueFeed:
    """All times are milliseconds of a clock that never goes back."""

    def __init__(self, term: int) -> None:
        self._stamp = term << _TERM_SHIFT
        self._servers: dict[ChunkserverId, _Server] = {}
        self._is_wanted = True
        self._pass: _Pass | None = None
        self._next_pass_ms = 0
        self._seen: FileSystemState | None = None  # when the last pass began

    def published(self, state: FileSystemState, file_id: FileId) -> None:
        """A file has come to be, or has another name."""
        inode = state.inodes.get(file_id)
        path = None if inode is None else path_of(state, inode)
        if isinstance(inode, FileInode) and path is not None:
            self._tell(state, inode, path)

    def moved(self, state: FileSystemState, path: str) -> None:
        """As ``published``; what lies below a directory waits for the next pass."""
        inode = find_inode(state, split_path(path))
        if isinstance(inode, FileInode):
            self._tell(state, inode, path)

    def batch(
        self, chunkserver_id: ChunkserverId, took: int, *, now_ms: int
    ) -> CatalogueBatch | None:
        """The answer to a heartbeat that says which batch was stored last; 0 says none, by a
        process that has just started, or had to begin anew."""
        server = self._servers.get(chunkserver_id)
        if server is None or (took == 0 and server.has_taken):
            server = self._servers[chunkserver_id] = _Server()
            self._is_wanted = True
        server.last_heard_ms = now_ms
        server.has_taken = server.has_taken or took > 0
        if server.sent is not None and took != server.sent.stamp:
            return server.sent
        server.sent = None
        if server.queue:
            self._stamp += 1
            count = min(len(server.queue), BATCH_FILES_MAX)
            files = tuple(server.queue.popleft() for _ in range(count))
            server.sent = CatalogueBatch(stamp=self._stamp, files=files)
        elif self._pass is not None and self._pass.is_walked and not server.missed:
            server.missed = True  # nothing more of this pass
            self._stamp += 1
            server.sent = CatalogueBatch(stamp=self._stamp, files=(), forget_below=self._pass.stamp)
        return server.sent

    def step(self, state: FileSystemState, now_ms: int) -> None:
        """Go on with the pass, or begin one if it is time; to be called once a second or so."""
        current = self._pass_under_way(state, now_ms)
        if current is None or self._is_backed_up(now_ms):
            return
        current.step_count += 1
        if self._tell_some(state, current):
            return
        if current.top == "/":
            current.top, current.start_after = _TRASH_PATH, ""  # removed, and kept for a while
        else:
            current.is_walked = True
            pause_ms = PAUSE_MS_PER_STEP * current.step_count
            self._next_pass_ms = now_ms + max(PASS_PAUSE_MS, pause_ms)

    def _pass_under_way(self, state: FileSystemState, now_ms: int) -> "_Pass | None":
        """The pass to go on with, begun if it is time; None between two of them."""
        if self._pass is not None and not self._pass.is_walked:
            return self._pass
        if now_ms < self._next_pass_ms:
            return None
        self._pass = None
        has_changed = self._seen is None or self._seen.inodes is not state.inodes
        if self._is_wanted or has_changed:
            self._begin(state)
        return self._pass

    def _tell_some(self, state: FileSystemState, current: "_Pass") -> bool:
        """Tell the next files below the top of a pass; whether there are more."""
        page = find_page(state, current.top, current.start_after, STEP_FILES_MAX)
        chunk_count = 0
        for status in page.entries:
            self._tell_status(state, status)
            current.start_after = status.path
            chunk_count += status.chunk_count
            if chunk_count >= STEP_CHUNKS_MAX:
                return True
        return page.more

    def _begin(self, state: FileSystemState) -> None:
        self._stamp += 1
        self._pass = _Pass(stamp=self._stamp)
        # What still waits may be gone by now, and will be told all the same: another pass says so.
        self._is_wanted = any(server.queue for server in self._servers.values())
        self._seen = state
        for server in self._servers.values():
            server.missed = False

    def _is_backed_up(self, now_ms: int) -> bool:
        """Whether a server must take some first; one that is silent is not waited for."""
        for server in self._servers.values():
            if len(server.queue) >= QUEUE_FILES_MAX:
                if now_ms - server.last_heard_ms < PASS_PAUSE_MS:
                    return True
                server.queue.clear()
                server.missed = True
                self._is_wanted = True
        return False

    def _tell_status(self, state: FileSystemState, status: FileStatus) -> None:
        if status.kind is EntryKind.FILE:
            inode = state.inodes.get(status.file_id)
            if isinstance(inode, FileInode):
                self._tell(state, inode, status.path)

    def _tell(self, state: FileSystemState, inode: FileInode, path: str) -> None:
        chunks, digest, size_bytes = inode.chunks, inode.digest, inode.size_bytes
        if chunks and state.chunks[chunks[-1]].is_open:  # only what is sealed is sure
            chunks = chunks[:-1]
            sealed = [state.chunks[handle] for handle in chunks]
            digest = file_digest([chunk.digest for chunk in sealed])
            size_bytes = sum(chunk.length_bytes for chunk in sealed)
        told = CataloguedFile(
            file_id=inode.file_id,
            path=path,
            size_bytes=size_bytes,
            chunk_count=len(chunks),
            digest=digest,
            modified_ms=inode.modified_ms,
            chunk_runs=_runs(chunks),
        )
        for chunkserver_id in self._holders(state, inode):
            server = self._servers.get(chunkserver_id)
            if server is None:
                continue
            if len(server.queue) < 2 * QUEUE_FILES_MAX:
                server.queue.append(told)
            else:
                server.missed = True
                self._is_wanted = True

    def _holders(self, state: FileSystemState, inode: FileInode) -> Iterable[ChunkserverId]:
        """Who has some of it; a file without chunks is told to everybody."""
        if not inode.chunks:
            return list(self._servers)
        holders: dict[ChunkserverId, None] = {}
        for handle in inode.chunks:
            chunk = state.chunks.get(handle)
            if chunk is not None:
                holders.update(dict.fromkeys(chunk.replicas))
        return holders


def _runs(handles: Sequence[ChunkHandle]) -> tuple[tuple[ChunkHandle, int], ...]:
    """Handles are given one after the other, so a file has few runs of them."""
    runs: list[tuple[ChunkHandle, int]] = []
    for handle in handles:
        if runs and runs[-1][0] + runs[-1][1] == handle:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        elif len(runs) == RUNS_MAX:
            return ()
        else:
            runs.append((handle, 1))
    return tuple(runs)


@dataclass(slots=True)
class _Pass:
    stamp: int  # what is told from now on has a higher one
    step_count: int = 0
    top: str = "/"
    start_after: str = ""
    is_walked: bool = False
