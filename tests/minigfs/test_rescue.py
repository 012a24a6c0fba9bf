"""What can be put together from chunk files is, and nothing that is not what was published."""

import itertools
from collections.abc import Iterable
from pathlib import Path

import pytest

from minigfs.chunkserver.catalogue import Catalogue
from minigfs.chunkserver.checksum import block_sums, digest_of_table
from minigfs.chunkserver.messages import WriteChunk
from minigfs.chunkserver.store import ChunkStore
from minigfs.config import CHECKSUM_BLOCK_BYTES as BLOCK
from minigfs.errors import FileExists, InvalidConfig
from minigfs.ids import ChunkHandle, ChunkVersion, ClusterId, FileId
from minigfs.master.chunks import file_digest
from minigfs.master.heartbeat_messages import CatalogueBatch, CataloguedFile
from minigfs.ports import RealDisk
from minigfs.rescue import Rescue, Rescued, RescueReport
from tests.minigfs.chunkserver.test_blank_files import seal_small

CHUNK = 2 * BLOCK
SEED = bytes(range(251))


def content(length: int, salt: int = 0) -> bytes:
    return ((SEED[salt:] + SEED[:salt]) * (length // len(SEED) + 1))[:length]


class Servers:
    """Directories of chunkservers, filled by hand."""

    def __init__(self, root: Path, count: int = 2, cluster_id: str = "c1") -> None:
        self.directories = [root / f"server-{number}" for number in range(count)]
        self.stores = []
        self.catalogues = []
        for directory in self.directories:
            directory.mkdir(parents=True)
            store = ChunkStore(RealDisk(directory), cluster_id=ClusterId(cluster_id))
            store.open()
            self.stores.append(store)
            self.catalogues.append(Catalogue(directory))
        self._handles = itertools.count(1)
        self._stamps = itertools.count(1)

    def write(
        self, file_id: int, path: str, data: bytes, *, on: Iterable[int] = (0, 1), version: int = 1
    ) -> list[int]:
        """Seal the chunks of a file on some servers; their handles."""
        handles = []
        for index, start in enumerate(range(0, len(data), CHUNK)):
            handle = next(self._handles)
            handles.append(handle)
            for server in on:
                self._seal(
                    server, handle, file_id, index, path, data[start : start + CHUNK], version
                )
        return handles

    def _seal(
        self,
        server: int,
        handle: int,
        file_id: int,
        index: int,
        path: str,
        data: bytes,
        version: int,
    ) -> None:
        request = WriteChunk(
            handle=ChunkHandle(handle),
            version=ChunkVersion(version),
            file_id=FileId(file_id),
            index=index,
            path_hint=path,
            chunk_bytes=CHUNK,
            chain=(),
        )
        sums = block_sums(data, handle=ChunkHandle(handle), first_block=0)
        with self.stores[server].create(request) as incoming:
            incoming.append(0, data, sums)
            incoming.seal()

    def tell(
        self,
        file_id: int,
        path: str,
        data: bytes,
        handles: list[int],
        *,
        to: Iterable[int] = (0, 1),
        with_chunks: bool = True,
    ) -> None:
        """What the masters say of a published file, with or without the handles of its chunks."""
        digests = []
        for place, handle in enumerate(handles):
            part = data[place * CHUNK : (place + 1) * CHUNK]
            sums = block_sums(part, handle=ChunkHandle(handle), first_block=0)
            digests.append(digest_of_table(sums))
        told = CataloguedFile(
            file_id=FileId(file_id),
            path=path,
            size_bytes=len(data),
            chunk_count=len(handles),
            digest=file_digest(digests),
            modified_ms=1_700_000_000_000,
            chunk_runs=tuple((ChunkHandle(h), 1) for h in handles) if with_chunks else (),
        )
        batch = CatalogueBatch(stamp=next(self._stamps), files=(told,))
        for server in to:
            self.catalogues[server].store(batch)

    def publish(self, file_id: int, path: str, data: bytes) -> list[int]:
        handles = self.write(file_id, path, data)
        self.tell(file_id, path, data, handles)
        return handles

    def file(self, server: int, handle: int) -> Path:
        return self.directories[server] / "chunks" / f"{handle:016x}.chunk"


@pytest.fixture
def servers(tmp_path: Path) -> Servers:
    return Servers(tmp_path / "servers")


def flip(path: Path, offset: int) -> None:
    changed = bytearray(path.read_bytes())
    changed[offset] ^= 1
    path.write_bytes(changed)


def rescue(servers: Servers, target: Path) -> tuple[RescueReport, dict[str, Rescued]]:
    told: dict[str, Rescued] = {}
    with Rescue(target) as work:
        for directory in servers.directories:
            work.scan(directory)
        report = work.restore(lambda one: told.__setitem__(one.path, one))
    assert not list(target.rglob(".rescue*"))
    return report, told


def files_below(target: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(target)): path.read_bytes()
        for path in target.rglob("*")
        if path.is_file()
    }


def test_published_files_come_back_under_their_last_names(servers: Servers, tmp_path: Path) -> None:
    long, short = content(3 * CHUNK + 5), content(10, salt=3)
    servers.publish(1, "/logs/long", long)
    handles = servers.write(2, "/tmp/upload", short, on=[1])
    servers.tell(2, "/tmp/upload", short, handles, to=[0])
    servers.tell(2, "/final/näme", short, handles, to=[1])
    servers.tell(3, "/empty", b"", [])
    report, told = rescue(servers, tmp_path / "out")
    assert files_below(tmp_path / "out") == {"logs/long": long, "final/näme": short, "empty": b""}
    assert (report.rescued, report.incomplete, report.bytes) == (3, 0, len(long) + 10)
    assert (tmp_path / "out" / "empty").stat().st_mtime == 1_700_000_000
    assert {one.outcome for one in told.values()} == {"rescued"}


def test_a_part_is_taken_block_by_block_from_whoever_has_it_right(
    servers: Servers, tmp_path: Path
) -> None:
    data = content(2 * CHUNK)
    first, second = servers.publish(1, "/a", data)
    flip(servers.file(0, first), -1)
    flip(servers.file(1, first), -BLOCK - 1)
    flip(servers.file(0, second), 20)
    report, _ = rescue(servers, tmp_path / "out")
    assert files_below(tmp_path / "out") == {"a": data}
    assert report.damaged_chunk_files == 1


@pytest.mark.parametrize("harm", ["same block", "removed", "cut", "sums"])
def test_what_is_not_whole_is_named_and_not_written(
    harm: str, servers: Servers, tmp_path: Path
) -> None:
    data = content(2 * CHUNK)
    _, second = servers.publish(1, "/a", data)
    servers.publish(2, "/fine", b"fine")
    for server in (0, 1):
        file = servers.file(server, second)
        match harm:
            case "same block":
                flip(file, -1)
            case "removed":
                file.unlink()
            case "cut":
                file.write_bytes(file.read_bytes()[:-BLOCK])
            case "sums":
                flip(file, 110)
    report, told = rescue(servers, tmp_path / "out")
    assert files_below(tmp_path / "out") == {"fine": b"fine"}
    assert (report.rescued, report.incomplete) == (1, 1)
    assert told["/a"].outcome == "incomplete"
    if harm != "removed":
        assert f"{second:x}" in told["/a"].detail or "part 1" in told["/a"].detail


@pytest.mark.parametrize("with_chunks", [False, True])
def test_an_abandoned_chunk_does_not_stand_in_for_the_published_one(
    with_chunks: bool, servers: Servers, tmp_path: Path
) -> None:
    data = content(CHUNK)
    servers.write(1, "/a", content(CHUNK, salt=9))
    handles = servers.write(1, "/a", data)
    servers.write(1, "/a", content(CHUNK, salt=7), on=[1])
    servers.tell(1, "/a", data, handles, with_chunks=with_chunks)
    report, _ = rescue(servers, tmp_path / "out")
    assert files_below(tmp_path / "out") == {"a": data}
    assert report.stale_chunk_files == (0 if with_chunks else 3)


def test_a_clone_has_the_chunks_of_another_file_which_may_be_gone(
    servers: Servers, tmp_path: Path
) -> None:
    data = content(2 * CHUNK)
    handles = servers.write(1, "/original", data)
    servers.tell(2, "/clone", data, handles)
    servers.tell(3, "/another", data[:CHUNK], handles[:1])
    report, _ = rescue(servers, tmp_path / "out")
    assert files_below(tmp_path / "out") == {"clone": data, "another": data[:CHUNK]}
    assert report.unconfirmed == 0


def test_a_file_whose_chunks_are_others_by_now_is_found_by_what_they_say(
    servers: Servers, tmp_path: Path
) -> None:
    data = content(CHUNK + 9)
    handles = servers.write(1, "/a", data)
    servers.tell(1, "/a", data, handles, with_chunks=False)
    told = CataloguedFile(
        file_id=FileId(1),
        path="/a",
        size_bytes=len(data),
        chunk_count=2,
        digest=file_digest([_digest(data[:CHUNK], 1), _digest(data[CHUNK:], 2)]),
        modified_ms=1,
        chunk_runs=((ChunkHandle(90), 2),),
    )
    servers.catalogues[0].store(CatalogueBatch(stamp=99, files=(told,)))
    report, _ = rescue(servers, tmp_path / "out")
    assert files_below(tmp_path / "out") == {"a": data}
    assert report.rescued == 1


def _digest(data: bytes, handle: int) -> int:
    return digest_of_table(block_sums(data, handle=ChunkHandle(handle), first_block=0))


def test_a_replica_that_was_rolled_back_is_not_believed(servers: Servers, tmp_path: Path) -> None:
    data, old = content(CHUNK), content(CHUNK, salt=1)
    (handle,) = servers.publish(1, "/a", data)
    past = Servers(tmp_path / "past", count=1)
    past.write(1, "/a", old, on=[0])
    servers.file(0, handle).write_bytes(past.file(0, 1).read_bytes())
    report, _ = rescue(servers, tmp_path / "out")
    assert files_below(tmp_path / "out") == {"a": data}
    assert report.stale_chunk_files == 1


def test_what_no_catalogue_names_is_set_apart(servers: Servers, tmp_path: Path) -> None:
    data = content(CHUNK + 7)
    servers.write(5, "/dir/unknown", data)
    servers.write(6, "/dir/with-gap", content(3 * CHUNK))
    for server in (0, 1):
        servers.file(server, 4).unlink()
    report, told = rescue(servers, tmp_path / "out")
    assert files_below(tmp_path / "out") == {"_unconfirmed/dir/unknown": data}
    assert (report.unconfirmed, report.incomplete) == (1, 1)
    assert told["/dir/with-gap"].outcome == "incomplete"


def test_a_small_chunk_is_found_under_the_only_name_that_a_crash_has_left_it(
    servers: Servers, tmp_path: Path
) -> None:
    blanks = servers.stores[0].blanks
    blanks.take()
    blanks.work()
    seal_small(servers.stores[0], 100, b"small")
    servers.tell(1, "/a", b"small", [100])
    servers.file(0, 100).unlink()
    report, _ = rescue(servers, tmp_path / "out")
    assert files_below(tmp_path / "out") == {"a": b"small"}
    assert (report.rescued, report.damaged_chunk_files) == (1, 0), "blanks are no chunks"


def test_of_two_files_with_one_name_the_newer_one_has_it(servers: Servers, tmp_path: Path) -> None:
    servers.publish(1, "/a", b"older")
    servers.publish(2, "/a", b"newer")
    servers.publish(3, "/a/below", b"a file is in the way")
    report, told = rescue(servers, tmp_path / "out")
    assert files_below(tmp_path / "out") == {
        "a": b"newer",
        "a.~1": b"older",
        "a.~3/below": b"a file is in the way",
    }
    assert report.conflicts == 1
    assert told["/a"].outcome == "conflict"


def test_the_longest_names_come_back_too(servers: Servers, tmp_path: Path) -> None:
    name = "€" * 85  # 255 bytes
    servers.publish(1, f"/{name}", content(100))
    servers.publish(2, f"/{name}", content(200))
    rescue(servers, tmp_path / "out")
    assert files_below(tmp_path / "out") == {name: content(200), f"{'€' * 66}.~1": content(100)}


def test_deleted_files_stay_deleted_but_the_trash_helps_out(
    servers: Servers, tmp_path: Path
) -> None:
    deleted = servers.publish(1, "/deleted", b"deleted")
    first, second = servers.publish(2, "/kept", content(2 * CHUNK))
    for store in servers.stores:
        store.delete(ChunkHandle(deleted[0]))
        store.delete(ChunkHandle(second))
    report, _ = rescue(servers, tmp_path / "out")
    assert files_below(tmp_path / "out") == {"kept": content(2 * CHUNK)}
    assert (report.rescued, report.known_without_chunks) == (1, 1)
    assert first != second


def test_a_damaged_catalogue_is_reported_and_the_others_suffice(
    servers: Servers, tmp_path: Path
) -> None:
    servers.publish(1, "/a", b"content")
    servers.catalogues[0].close()
    (servers.directories[0] / "catalogue.sqlite").write_bytes(b"rubbish" * 1000)
    report, _ = rescue(servers, tmp_path / "out")
    assert files_below(tmp_path / "out") == {"a": b"content"}
    assert len(report.damaged_catalogues) == 1


def test_no_name_leads_out_of_the_target(servers: Servers, tmp_path: Path) -> None:
    servers.publish(1, "/../../evil", b"1")
    servers.publish(2, "/" + "n" * 300, b"2")
    servers.write(3, "/../evil", b"3")
    rescue(servers, tmp_path / "out" / "deep")
    found = files_below(tmp_path / "out")
    assert sorted(found.values()) == [b"1", b"2", b"3"]
    assert all(path.startswith("deep/") for path in found)


def test_two_clusters_are_not_mixed(servers: Servers, tmp_path: Path) -> None:
    servers.publish(1, "/a", b"1")
    others = Servers(tmp_path / "others", cluster_id="c2")
    others.publish(1, "/a", b"2")
    with Rescue(tmp_path / "out") as work:
        work.scan(servers.directories[0])
        with pytest.raises(InvalidConfig, match="one cluster at a time"):
            work.scan(others.directories[0])


def test_a_directory_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(FileExists, match="not empty"):
        Rescue(tmp_path / "full")
