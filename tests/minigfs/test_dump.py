"""What stands in files is shown, up to where they are damaged; and nothing is written."""

from pathlib import Path

import pytest

from minigfs.chunkserver.store import ChunkStore
from minigfs.config import CHECKSUM_BLOCK_BYTES as BLOCK
from minigfs.config import FileSystemConfig
from minigfs.dump import Row, dump_chunk, dump_log, dump_snapshot
from minigfs.ids import ClusterId, FileId, Origin, SessionId
from minigfs.master import commands
from minigfs.master.machine import FileSystemMachine
from minigfs.ports import RealDisk
from minigfs.raft import Configuration, Entry, EntryKind, NodeId, SnapshotMetadata
from minigfs.raft.records import HardState
from minigfs.replication.commands import LoggedCommand, encode_logged_command
from minigfs.replication.log_records import (
    Checkpoint,
    Head,
    LogPosition,
    _encode_save,
    encode_head,
    encode_keep,
)
from minigfs.replication.machines import ReplicatedMachines
from minigfs.replication.snapshot_files import SnapshotFiles
from minigfs.replication.wal_format import FIRST_CHAIN, encode_record
from tests.minigfs.chunkserver.test_store import pattern, seal

CONFIGURATION = Configuration(voters=(NodeId("m1"), NodeId("m2")))
METADATA = SnapshotMetadata(
    last_included_index=3, last_included_term=2, configuration=CONFIGURATION
)


def read_only(path: Path) -> Path:
    path.chmod(0o400)
    path.parent.chmod(0o500)
    return path


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


@pytest.fixture
def chunk(tmp_path: Path) -> Path:
    store = ChunkStore(RealDisk(tmp_path), cluster_id=ClusterId("c1"))
    store.open()
    seal(store, 7, pattern(3 * BLOCK)[: 2 * BLOCK + 9])
    return tmp_path / "chunks" / f"{7:016x}.chunk"


def test_a_chunk_shows_its_header_and_every_bad_block(chunk: Path) -> None:
    header, end = list(dump_chunk(chunk))
    assert end == {"what": "end"}
    assert (header["handle"], header["length_bytes"]) == (f"{7:016x}", 2 * BLOCK + 9)
    assert (header["path_hint"], header["cluster_id"]) == ("/a", "c1")
    flip(chunk, -1)
    flip(chunk, -9 - BLOCK)
    _, first, second, end = list(dump_chunk(chunk))
    assert [first["block"], second["block"]] == [1, 2]
    assert end["damage"] == "2 blocks have wrong sums"


@pytest.mark.parametrize(("offset", "said"), [(3, "not a chunk file"), (30, "header's sum")])
def test_a_file_that_is_no_chunk_is_said_to_be_none(chunk: Path, offset: int, said: str) -> None:
    flip(chunk, offset)
    (end,) = dump_chunk(chunk)
    assert said in end["damage"]


def test_a_cut_chunk_shows_what_is_left(chunk: Path) -> None:
    chunk.write_bytes(chunk.read_bytes()[:-BLOCK])
    rows = list(dump_chunk(chunk))
    assert [row["what"] for row in rows] == ["header", "bad block", "bad block", "end"]


def log_segment(directory: Path) -> tuple[Path, list[int]]:
    """A segment with two saves and a snapshot's mark; where each record begins."""
    publish = commands.PublishFile(9, FileId(4), "/a", (), False)
    logged = LoggedCommand("fs", 9, commands.encode_command(publish), Origin(SessionId(1), 2, 1))
    entries = (
        Entry(index=4, term=2, kind=EntryKind.NOOP),
        Entry(index=5, term=2, data=encode_logged_command(logged)),
        Entry(
            index=6, term=2, data=encode_logged_command(LoggedCommand("jobs", 9, b"\x92\x01\x02"))
        ),
    )
    checkpoint = Checkpoint(HardState(current_term=2), METADATA, LogPosition(3, 2))
    records = [
        encode_head(Head(NodeId("m1"), 1, FIRST_CHAIN, 0, checkpoint)),
        _encode_save(HardState(current_term=2, voted_for=NodeId("m1")), entries),
        encode_keep(METADATA),
    ]
    content, chain, offsets = b"", FIRST_CHAIN, []
    for record in records:
        offsets.append(len(content))
        data, chain = encode_record(record, len(content), chain)
        content += data
    directory.mkdir()
    path = directory / f"{1:016d}.wal"
    path.write_bytes(content + bytes(4096))
    return path, offsets


def test_a_log_shows_its_entries_with_their_commands(tmp_path: Path) -> None:
    path, offsets = log_segment(tmp_path / "wal")
    rows = list(dump_log(read_only(path)))
    assert [row["what"] for row in rows] == ["head", "save", "keep", "end"]
    assert [row["offset"] for row in rows[:3]] == offsets
    assert rows[0]["member_id"] == "m1"
    noop, publish, job = rows[1]["entries"]
    assert (noop["index"], noop["term"], noop["kind"]) == (4, 2, "no-op")
    assert publish["machine"] == "fs"
    assert publish["command"]["type"] == "PublishFile"
    assert publish["command"]["path"] == "/a"
    assert publish["origin"]["sequence"] == 2
    assert job["command"] == [1, 2]
    assert rows[3]["torn"] is False
    assert "damage" not in rows[3]


def test_a_damaged_log_is_shown_up_to_the_damage(tmp_path: Path) -> None:
    path, offsets = log_segment(tmp_path / "wal")
    flip(path, offsets[1] + 50)
    rows = list(dump_log(path))
    assert [row["what"] for row in rows] == ["head", "end"]
    assert rows[1]["damage"] == f"the record at offset {offsets[1]} is damaged"


def test_a_torn_end_is_no_damage(tmp_path: Path) -> None:
    path, offsets = log_segment(tmp_path / "wal")
    path.write_bytes(path.read_bytes()[: offsets[2] + 20])
    end = list(dump_log(path))[-1]
    assert (end["torn"], "damage" in end) == (True, False)


def snapshot(tmp_path: Path) -> Path:
    machine = FileSystemMachine()
    machines = ReplicatedMachines({"fs": machine})
    configure = commands.Configure(1, FileSystemConfig(cluster_id="c1"))
    mkdir = commands.MakeDirectory(2, "/here", False, False)
    for index, command in enumerate((configure, mkdir), start=1):
        data = encode_logged_command(LoggedCommand("fs", 1, commands.encode_command(command)))
        machines.apply(Entry(index=index, term=2, data=data))
    machines.apply(Entry(index=3, term=2, kind=EntryKind.NOOP))
    (tmp_path / "snapshots").mkdir()
    writer = SnapshotFiles(RealDisk(tmp_path), "snapshots").create(METADATA)
    for piece in machines.freeze():
        writer.write(piece)
    writer.finish()
    return tmp_path / "snapshots" / "snapshot-3-2"


def rows_of(machine: str, rows: list[Row]) -> list[Row]:
    return [row["record"] for row in rows if row.get("machine") == machine]


def test_a_snapshot_shows_the_state_of_every_machine(tmp_path: Path) -> None:
    rows = list(dump_snapshot(read_only(snapshot(tmp_path))))
    assert rows[0]["last_included_index"] == 3
    assert rows[1]["machines"] == ["fs", "members", "sessions"]
    head, block = rows_of("fs", rows)
    assert head["config"]["cluster_id"] == "c1"
    assert [entry["name"] for entry in block["entries"]] == ["here"]
    assert rows[-1] == {"what": "end"}


@pytest.mark.parametrize("offset", [40, -10])
def test_a_damaged_snapshot_is_said_to_be(tmp_path: Path, offset: int) -> None:
    path = snapshot(tmp_path)
    flip(path, offset)
    assert "damaged" in list(dump_snapshot(path))[-1]["damage"]
