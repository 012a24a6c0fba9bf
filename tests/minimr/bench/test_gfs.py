"""`bench gfs` and `bench raft`: the loads do what they say, and the tables line up."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from minigfs.errors import UsageError
from minimr.bench.figures import Figure, Limit, figure_table
from minimr.bench.gfs_loads import random_reads, sequential_read, small_changes, writes
from minimr.bench.machine import MachineLimits, measure_machine
from minimr.bench.moosefs import check_moosefs
from minimr.bench.raft_peers import check_raft_peers
from minimr.bench.stores import MountedStore

SIZE_BYTES = 8 << 20


@pytest.fixture
def store(tmp_path: Path) -> MountedStore:
    for replication in "123":
        (tmp_path / replication).mkdir()
    return MountedStore(tmp_path, "local")


@pytest.fixture(scope="module")
def machine() -> MachineLimits:
    return measure_machine(None, SIZE_BYTES)


def test_large_files_are_written_whole_and_read(
    store: MountedStore, machine: MachineLimits
) -> None:
    written = list(writes(store, machine, SIZE_BYTES, (1, 3)))
    assert [figure.limit for figure in written] == ["disk", "disk/3"]
    assert (store.root / "3" / "large").stat().st_size == SIZE_BYTES
    read = sequential_read(store, "read", Limit(machine.file_read, "file"))
    some = list(random_reads(store, machine, SIZE_BYTES, 0.02))
    assert [figure.what[-9:] for figure in some] == [f"{n} clients" for n in (1, 2, 4, 8)]
    for figure in (*written, read, *some):
        assert figure.value > 0
        assert figure.of_limit is not None
        assert figure.of_limit > 0


def test_small_changes_are_counted_and_all_that_was_made_is_deleted(store: MountedStore) -> None:
    figures = list(small_changes(store, 0.02))
    assert [figure.what for figure in figures] == [
        f"{kind}, {count} clients"
        for count in (1, 64)
        for kind in (
            *("make directory", "create empty", "create 1 KiB", "read 1 KiB"),
            *("rename", "stat", "delete"),
        )
    ]
    assert all(figure.value > 0 for figure in figures)
    assert list((store.root / "3" / "create-empty-64").iterdir()) == []
    assert {f.stat().st_size for f in (store.root / "3" / "create-1-KiB-1").iterdir()} == {1024}


def test_systems_stand_beside_each_other_in_the_table() -> None:
    limit = Limit(2e9, "disk")
    heads, rows = figure_table(
        [
            Figure.rate("ours", "write", 1e9, limit),
            Figure(system="ours", what="stall", value=3.25, unit="ms"),
            Figure.rate("theirs", "write", 5e8, limit),
        ]
    )
    assert heads == ("what", "unit", "limit", "ours", "of limit", "theirs", "of limit")
    assert rows == [
        ("write", "MB/s", "disk", "1,000", "50%", "500", "25%"),
        ("stall", "ms", "", "3.2", "", "", ""),
    ]


def test_who_lacks_moosefs_is_told_how_to_get_it_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_args, **_options: None)
    with pytest.raises(UsageError, match="apt install moosefs-master"):
        check_moosefs()


def test_who_lacks_a_peer_of_the_masters_is_told_how_to_get_it_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_args, **_options: None)
    with pytest.raises(UsageError, match="apt install etcd-server"):
        check_raft_peers()
    monkeypatch.setattr("shutil.which", lambda *_args, **_options: "/usr/bin/etcd")
    monkeypatch.setattr("minimr.bench.raft_peers.find_spec", lambda *_args: None)
    with pytest.raises(UsageError, match="pip install grpcio pysyncobj"):
        check_raft_peers()


def minimr(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-P", "-m", "minimr", *arguments],
        capture_output=True,
        timeout=280,
        check=True,
    )


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_small_run_gives_every_figure(tmp_path: Path) -> None:
    done = minimr(
        *("bench", "gfs", "--size", "32MiB", "--seconds", "0.2", "--json"),
        *("--scratch", str(tmp_path)),
    )
    figures = json.loads(done.stdout)["figures"]
    found = {figure["what"]: figure for figure in figures}
    assert len(found) == len(figures)
    assert all(figure["value"] >= 0 for figure in figures)
    for beginning in (
        "write one file, 3 replicas",
        "append 64 KiB records to one file, 16 clients",
        "create 1 KiB, 64 clients",
        "delete, 64 clients",
        "read, cold",
        "read, warm, through the socket",
        "longest stall of a writer, the leader killed",
        "no chunk with a single replica, after the kill",
    ):
        assert any(what.startswith(beginning) for what in found), beginning
    (made_again,) = (f for f in figures if f["limit"].startswith("throttle"))
    assert made_again["of_limit"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_masters_are_measured_and_killed(tmp_path: Path) -> None:
    done = minimr(
        *("bench", "raft", "--clients", "1,4", "--seconds", "0.2", "--kills", "1", "--json"),
        *("--scratch", str(tmp_path)),
    )
    (ours,) = json.loads(done.stdout)
    assert [rate["clients"] for rate in ours["rates"]] == [1, 4]
    assert len(ours["failover_ms"]) == 1
    assert list(tmp_path.iterdir()) == []
