"""A member's id and its log come into being together, and neither comes back without the other."""

import json
import shutil
from pathlib import Path

import pytest

from minigfs.errors import CorruptLog, InvalidConfig
from minigfs.ports import SystemRng
from minigfs.raft import Configuration, NodeId
from minigfs.replication.founding import found_group, load_member, make_newcomer

ADDRESSES = ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")


def places(root: Path) -> list[tuple[Path, str]]:
    return [(root / f"master-{n}", address) for n, address in enumerate(ADDRESSES)]


def found(root: Path) -> None:
    found_group(places(root), SystemRng())


def ids(root: Path) -> list[NodeId]:
    """Of the members, which are all there."""
    found_ids = []
    for directory, _ in places(root):
        loaded = load_member(directory)
        assert loaded is not None
        loaded[0].close()
        assert loaded[0].member_id == loaded[1].member_id
        found_ids.append(loaded[0].member_id)
    return found_ids


def set_incomplete(directory: Path) -> None:
    """As a founding leaves it that was cut short."""
    path = directory / "members.json"
    path.write_text(path.read_text().replace('"complete": true', '"complete": false'))


def remove_log(directory: Path) -> None:
    shutil.rmtree(directory / "wal")
    shutil.rmtree(directory / "snapshots")


def test_a_group_begins_with_one_configuration_that_all_members_share(tmp_path) -> None:
    found(tmp_path)
    members = ids(tmp_path)
    assert len(set(members)) == 3
    for directory, _ in places(tmp_path):
        loaded = load_member(directory)
        assert loaded is not None
        log, file = loaded
        assert log.snapshot_metadata().configuration == Configuration(voters=tuple(sorted(members)))
        assert file.members == dict(zip(members, ADDRESSES, strict=True))
        log.close()


def test_founding_again_changes_nothing(tmp_path) -> None:
    found(tmp_path)
    before = ids(tmp_path)
    found(tmp_path)
    assert ids(tmp_path) == before


@pytest.mark.parametrize(("logs_made", "files_complete"), [(0, 0), (1, 0), (3, 0), (3, 1)])
def test_a_founding_cut_short_anywhere_is_finished_by_the_next(
    tmp_path, logs_made, files_complete
) -> None:
    found(tmp_path)
    before = ids(tmp_path)
    for number, (directory, _) in enumerate(places(tmp_path)):
        if number >= files_complete:
            set_incomplete(directory)
        if number >= logs_made:
            remove_log(directory)
        if number >= min(files_complete, logs_made):
            assert load_member(directory) is None, "no master starts there"
    found(tmp_path)
    assert ids(tmp_path) == before


def test_a_founding_cut_short_before_all_files_were_there_begins_anew(tmp_path) -> None:
    found(tmp_path)
    for directory, _ in places(tmp_path):
        set_incomplete(directory)
        remove_log(directory)
    (tmp_path / "master-2" / "members.json").unlink()
    found(tmp_path)
    assert len(set(ids(tmp_path))) == 3


@pytest.mark.parametrize("what", ["log", "directory"])
def test_a_member_that_lost_its_disk_is_never_made_again(tmp_path, what) -> None:
    found(tmp_path)
    lost = tmp_path / "master-1"
    if what == "log":
        remove_log(lost)
        with pytest.raises(InvalidConfig, match="its log is gone"):
            load_member(lost)
    else:
        shutil.rmtree(lost)
    with pytest.raises(InvalidConfig, match="cannot come back"):
        found(tmp_path)
    assert not (lost / "wal").exists()


def test_snapshots_without_a_log_are_damage_and_no_empty_directory(tmp_path) -> None:
    found(tmp_path)
    lost = tmp_path / "master-1"
    (lost / "snapshots" / "snapshot-5-1").write_bytes(b"x")
    shutil.rmtree(lost / "wal")
    with pytest.raises((CorruptLog, InvalidConfig)):
        load_member(lost)


def test_a_log_beside_another_members_file_is_refused(tmp_path) -> None:
    found(tmp_path)
    one, other = tmp_path / "master-0", tmp_path / "master-1"
    shutil.copy(one / "members.json", other / "members.json")
    with pytest.raises(InvalidConfig, match=r"members\.json"):
        load_member(other)


def test_a_log_without_its_file_is_neither_started_nor_founded_over(tmp_path) -> None:
    found(tmp_path)
    for directory, _ in places(tmp_path):
        (directory / "members.json").unlink()
    with pytest.raises(InvalidConfig):
        load_member(tmp_path / "master-0")
    with pytest.raises(InvalidConfig, match="holds a master's log"):
        found(tmp_path)
    with pytest.raises(InvalidConfig, match="holds a master's log"):
        make_newcomer(tmp_path / "master-0", ADDRESSES[0], SystemRng())


def test_a_newcomer_belongs_to_no_group_and_keeps_its_id_when_made_twice(tmp_path) -> None:
    make_newcomer(tmp_path / "new", "127.0.0.1:1", SystemRng())
    first = load_member(tmp_path / "new")
    assert first is not None
    assert first[0].snapshot_metadata().configuration == Configuration()
    first[0].close()
    set_incomplete(tmp_path / "new")
    make_newcomer(tmp_path / "new", "127.0.0.1:2", SystemRng())
    second = load_member(tmp_path / "new")
    assert second is not None
    assert second[0].member_id == first[0].member_id
    assert second[1].members == {first[0].member_id: "127.0.0.1:2"}
    second[0].close()


def test_a_members_file_that_is_no_json_or_of_another_release_is_named(tmp_path) -> None:
    found(tmp_path)
    path = tmp_path / "master-0" / "members.json"
    good = path.read_text()
    path.write_text("{")
    with pytest.raises(InvalidConfig, match=r"members\.json"):
        load_member(path.parent)
    path.write_text(json.dumps({**json.loads(good), "format": 9}))
    with pytest.raises(InvalidConfig, match="format 9"):
        load_member(path.parent)


def test_an_empty_directory_holds_nobody(tmp_path) -> None:
    assert load_member(tmp_path) is None
