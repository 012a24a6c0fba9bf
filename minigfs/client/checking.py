"""Every replica of every chunk of a tree, held against what the masters' log says of it.

The masters name the replicas, page by page; the chunkservers read them and say what they have; a
few chunks are asked for at a time, so the memory it takes does not depend on the size of the tree.
A replica is sound if it is there, at the version and with the length and the digest of the log,
and every block has its sum. Who has the wrong bytes for a digest that is right elsewhere is asked
for its table of sums, and the first block that differs is named.

Files are removed, and replicas moved, while they are checked. So before a chunk is called damaged
the masters are asked again: only what they still say is held against its servers.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from minigfs.chunkserver.checksum import SUM_BYTES
from minigfs.chunkserver.messages import ChunkVerified, VerifyChunk
from minigfs.client.config import ClientConfig
from minigfs.client.masters import MasterCaller
from minigfs.closing import ClosedOnExit
from minigfs.errors import MinigfsError, SecurityError
from minigfs.ids import ChunkHandle, ChunkserverId
from minigfs.master.examine_messages import (
    Examine,
    Examined,
    ExaminedAside,
    ExaminedChunk,
    ExaminedServer,
)
from minigfs.master.messages import ReportDamage
from minigfs.transport.client import ConnectionPool

__all__ = ["CheckedChunk", "Finding", "FindingKind", "ReplicaChecker"]

_CHUNKS_AT_ONCE = 6
_VERIFY_TIMEOUT_MS = 120_000  # 64 MiB from a disk that is busy with others
_REPAIR_POLL_S = 0.25
_LOOKS_MAX = 4  # at one chunk, if its replicas have moved before each of them


class FindingKind(StrEnum):
    DAMAGED = "damaged"  # some of its bytes are not what its sums say
    MISSING = "missing"
    STALE = "stale"  # an older version
    AHEAD = "ahead"  # a version that the masters never gave
    SET_ASIDE = "set-aside"  # so was this: out of use, kept for a person to look at
    DIFFERENT = "different"  # whole, but not what was published: rolled back, or another's
    UNREACHABLE = "unreachable"  # its server does not answer: nothing is known of it
    LOST = "lost"  # of a chunk: every replica was looked at, and none is sound
    UNAVAILABLE = "unavailable"  # of a chunk: no sound replica on the servers that answer


_ABOUT_REPLICAS = frozenset(
    (
        FindingKind.DAMAGED,
        FindingKind.MISSING,
        FindingKind.STALE,
        FindingKind.AHEAD,
        FindingKind.DIFFERENT,
    )
)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with one replica, or with a whole chunk (then ``server`` is "")."""

    kind: FindingKind
    path: str
    chunk: int  # its index in the file
    handle: str  # hex, as its file is named
    server: str = ""
    server_id: ChunkserverId = ChunkserverId("")
    host: str = ""
    block: int | None = None  # the first that is bad, if it is known
    detail: str = ""

    @property
    def is_damage(self) -> bool:
        """Of a replica that has to be replaced, or a chunk that is gone."""
        return self.kind in _ABOUT_REPLICAS or self.kind is FindingKind.LOST

    def __str__(self) -> str:
        where = f" on {self.server or self.server_id}" if self.server_id else ""
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.path}: chunk {self.chunk} ({self.handle}){where}: {self.kind}{detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedChunk:
    """The outcome for one chunk; without one (``chunk`` None) for a file that has none."""

    path: str
    chunk: ExaminedChunk | None
    sound_count: int = 0
    sound_bytes: int = 0  # that were read, on all servers together
    findings: tuple[Finding, ...] = ()


class ReplicaChecker(ClosedOnExit):
    """A context manager. Errors of the masters are raised as ``MasterCaller.call`` raises them."""

    def __init__(self, config: ClientConfig, *, quick: bool = False) -> None:
        """``quick``: believe the sums that are stored with the chunks, read no data."""
        self._pool = ConnectionPool(config.security())
        self._masters = MasterCaller(config, self._pool)
        self._quick = quick
        self._workers = ThreadPoolExecutor(_CHUNKS_AT_ONCE, thread_name_prefix="minigfs-check")

    def close(self) -> None:
        self._workers.shutdown(cancel_futures=True)
        self._pool.close()

    def check(self, path: str) -> Iterator[CheckedChunk]:
        """All chunks at and below a path, in order."""
        under_way: deque[Future[CheckedChunk]] = deque()
        for file_path, chunk, page in self._chunks(path):
            under_way.append(self._workers.submit(self._check, file_path, chunk, page))
            if len(under_way) > 2 * _CHUNKS_AT_ONCE:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()

    def report(self, finding: Finding) -> None:
        """Tell the masters of a bad replica, so that they have it replaced."""
        assert finding.kind in _ABOUT_REPLICAS
        self._masters.call(
            ReportDamage(
                handle=_handle_of(finding),
                chunkserver_id=finding.server_id,
                reason=f"{finding.kind} {finding.detail}",
            )
        )

    def await_repair(self, findings: Iterable[Finding], *, timeout_ms: int) -> list[Finding]:
        """Wait until the chunks of these findings are sound everywhere; what is wrong with those
        that are not in time. A file that is gone meanwhile is not missed."""
        left = {(finding.path, finding.chunk): [finding] for finding in findings}
        deadline_ms = time.monotonic() * 1000 + timeout_ms
        while left:
            for place in list(left):
                found = [one for one in self._check_again(*place) if one.is_damage]
                if found:
                    left[place] = found
                else:
                    del left[place]
            if time.monotonic() * 1000 > deadline_ms:
                break
            if left:
                time.sleep(_REPAIR_POLL_S)  # nobody tells a client of a repair
        return [finding for found in left.values() for finding in found]

    def _check_again(self, path: str, index: int) -> tuple[Finding, ...]:
        examined = self._examined(path, index)
        return () if examined is None else self._check(path, *examined).findings

    def _examined(self, path: str, index: int) -> tuple[ExaminedChunk, Examined] | None:
        """What the masters say of one chunk now; None if there is no such chunk any more."""
        try:
            page = self._masters.call(
                Examine(path=path, start_after=path if index else "", first_index=index)
            )
        except (FileNotFoundError, NotADirectoryError):
            return None
        for file in page.files:
            for chunk in file.chunks:
                if chunk.index == index:
                    return chunk, page
        return None

    def _chunks(self, path: str) -> Iterator[tuple[str, ExaminedChunk | None, Examined]]:
        """Each with the page that it stands on."""
        request = Examine(path=path)
        while True:
            page = self._masters.call(request)
            for file in page.files:
                if not file.chunks:
                    yield file.status.path, None, page
                for chunk in file.chunks:
                    yield file.status.path, chunk, page
            if not page.more:
                return
            request = Examine(path=path, start_after=page.start_after, first_index=page.first_index)

    def _check(self, path: str, chunk: ExaminedChunk | None, page: Examined) -> CheckedChunk:
        for _ in range(_LOOKS_MAX):
            if chunk is None or chunk.is_open:  # its members compare what they have by themselves
                break
            checked = self._look_at(path, chunk, page)
            if not any(finding.is_damage for finding in checked.findings):
                return checked
            examined = self._examined(path, chunk.index)
            if examined is None:
                break
            before, (chunk, page) = chunk, examined
            if chunk == before:
                return checked
        return CheckedChunk(path=path, chunk=chunk)

    def _look_at(self, path: str, chunk: ExaminedChunk, page: Examined) -> CheckedChunk:
        servers = {server.chunkserver_id: server for server in page.servers}
        findings: list[Finding] = []
        sound: list[ExaminedServer] = []
        for server in (servers[chunkserver_id] for chunkserver_id in chunk.replicas):
            verified = self._verify(server, chunk)
            finding = _judge(path, chunk, server, verified)
            if finding is None:
                sound.append(server)
            else:
                findings.append(finding)
        if sound:
            findings = [self._with_block(one, chunk, sound[0], servers) for one in findings]
        else:
            findings.append(_about_chunk(path, chunk, findings))
        findings += [
            _about_aside(path, chunk, aside)
            for aside in page.set_aside
            if aside.handle == chunk.handle
        ]
        return CheckedChunk(
            path=path,
            chunk=chunk,
            sound_count=len(sound),
            sound_bytes=0 if self._quick else len(sound) * chunk.length_bytes,
            findings=tuple(findings),
        )

    def _verify(
        self, server: ExaminedServer, chunk: ExaminedChunk, *, want_table: bool = False
    ) -> ChunkVerified | MinigfsError:
        """``want_table``: nothing but that."""
        if not server.alive:
            return MinigfsError("its server is not alive")
        request = VerifyChunk(
            handle=chunk.handle, quick=self._quick or want_table, want_table=want_table
        )
        try:
            return self._pool.call(server.address, request, timeout_ms=_VERIFY_TIMEOUT_MS)
        except SecurityError:
            raise
        except MinigfsError as error:
            return error

    def _with_block(
        self,
        finding: Finding,
        chunk: ExaminedChunk,
        sound: ExaminedServer,
        servers: dict[ChunkserverId, ExaminedServer],
    ) -> Finding:
        """Name the block in which a replica of other bytes differs from a sound one."""
        if finding.kind is not FindingKind.DIFFERENT:
            return finding
        other = self._verify(servers[finding.server_id], chunk, want_table=True)
        right = self._verify(sound, chunk, want_table=True)
        if isinstance(other, MinigfsError) or isinstance(right, MinigfsError):
            return finding
        block = _first_difference(other.table, right.table)
        return msgspec.structs.replace(
            finding, block=block, detail=f"{finding.detail}, from block {block} on"
        )


def _judge(
    path: str,
    chunk: ExaminedChunk,
    server: ExaminedServer,
    verified: ChunkVerified | MinigfsError,
) -> Finding | None:
    kind, detail, block = FindingKind.DAMAGED, "", None
    if isinstance(verified, MinigfsError):
        kind, detail = FindingKind.UNREACHABLE, verified.message
    elif not verified.present:
        kind = FindingKind.MISSING
    elif verified.problem:
        detail = verified.problem
        block = verified.bad_blocks[0] if verified.bad_blocks else None
    elif verified.version != chunk.version:
        is_older = verified.version < chunk.version
        kind = FindingKind.STALE if is_older else FindingKind.AHEAD
        detail = f"version {verified.version}, not {chunk.version}"
    elif chunk.length_bytes and verified.length_bytes != chunk.length_bytes:
        kind = FindingKind.DIFFERENT
        detail = f"{verified.length_bytes} bytes, {chunk.length_bytes} were published"
    elif chunk.length_bytes and verified.digest != chunk.digest:
        kind, detail = FindingKind.DIFFERENT, "other bytes than were published"
    else:
        return None
    return Finding(
        kind=kind,
        path=path,
        chunk=chunk.index,
        handle=f"{chunk.handle:016x}",
        server=server.address,
        server_id=server.chunkserver_id,
        host=server.host,
        block=block,
        detail=detail,
    )


def _about_chunk(path: str, chunk: ExaminedChunk, findings: list[Finding]) -> Finding:
    unknown = [one for one in findings if one.kind is FindingKind.UNREACHABLE]
    return Finding(
        kind=FindingKind.UNAVAILABLE if unknown else FindingKind.LOST,
        path=path,
        chunk=chunk.index,
        handle=f"{chunk.handle:016x}",
        detail=f"no sound replica on {len(findings) - len(unknown)} of {len(findings)} servers",
    )


def _about_aside(path: str, chunk: ExaminedChunk, aside: ExaminedAside) -> Finding:
    return Finding(
        kind=FindingKind.SET_ASIDE,
        path=path,
        chunk=chunk.index,
        handle=f"{chunk.handle:016x}",
        server=aside.address,
        server_id=aside.chunkserver_id,
        host=aside.host,
        detail=f"version {aside.version}, not {chunk.version}: look at it in quarantine/ there",
    )


def _first_difference(first: bytes, second: bytes) -> int:
    """The block whose sums differ, or the one that only one of the tables has."""
    for start in range(0, min(len(first), len(second)), SUM_BYTES):
        if first[start : start + SUM_BYTES] != second[start : start + SUM_BYTES]:
            return start // SUM_BYTES
    return min(len(first), len(second)) // SUM_BYTES


def _handle_of(finding: Finding) -> ChunkHandle:
    return ChunkHandle(int(finding.handle, 16))
