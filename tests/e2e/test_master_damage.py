"""One master's directory is damaged, cut, old or gone: the others go on and nothing is lost.

What is done to a directory is in ``tests.member_directories``; that every byte of a log and of a
snapshot is guarded is proved beside the code, here it is a real master's, and its whole group.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from minigfs.client.client import MinigfsClient
from minigfs.errors import CorruptLog
from tests.linearizability.checker import check
from tests.linearizability.models import NamespaceModel
from tests.master_group import MasterGroup
from tests.member_directories import (
    copy_of,
    flip,
    keep_snapshot,
    leave_cut_append,
    newest_segment,
    open_log,
    written_bytes,
)
from tests.namespace_workload import NamespaceWorkload

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

SPARE_BYTES = 64 * 1024
SEED = int(os.environ.get("MASTERS_SEED", "1"))


@pytest.fixture(scope="module")
def shared_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MasterGroup]:
    with MasterGroup(tmp_path_factory.mktemp("masters"), timeout_ms=30_000) as group:
        yield group


@pytest.fixture
def group(shared_group: MasterGroup) -> MasterGroup:
    """Whole, whatever the test before did to it."""
    shared_group.start_missing()
    return shared_group


@pytest.fixture
def rng() -> Random:
    return Random(SEED)


def make_directories(group: MasterGroup, name: str, count: int = 20) -> list[str]:
    """Their paths, acknowledged by the group."""
    client = MinigfsClient(group.config)
    paths = [f"/{name}-{number}" for number in range(count)]
    for path in paths:
        client.make_directory(path)
    return paths


def check_that_there_are(group: MasterGroup, paths: list[str]) -> None:
    there = {status.path for status in MinigfsClient(group.config).list_directory("/")}
    assert there >= set(paths)


def follower_of(group: MasterGroup) -> str:
    return group.others(group.wait_for_leader())[0]


def check_that_it_refuses_to_start(group: MasterGroup, name: str, path: Path) -> None:
    """And names the file, the place in it, and what to do."""
    group.start(name)
    told = group.wait_until_ended(name)
    assert str(group.masters[name].directory) in told
    assert path.name in told
    assert "offset" in told
    assert "remove this member" in told


def put_back(group: MasterGroup, name: str, whole: Path) -> None:
    """The newest state of a master's directory, so that the group is whole again."""
    directory = group.masters[name].directory
    shutil.rmtree(directory)
    whole.rename(directory)
    group.start(name)
    group.wait_for_answer(name)


def test_a_byte_flipped_anywhere_in_a_masters_log_is_refused_or_loses_nothing(
    group: MasterGroup, rng: Random, tmp_path: Path
) -> None:
    make_directories(group, "anywhere")
    name = follower_of(group)
    group.kill(name)
    copy = shutil.copytree(group.masters[name].directory, tmp_path / "copy")
    group.start(name)
    log = open_log(copy)
    vote, last = log.hard_state(), log.last_index()
    entries = tuple(log.entries(1, last, 1 << 40))
    log.close()
    segment = newest_segment(copy)
    written = written_bytes(segment)
    os.truncate(segment, written + SPARE_BYTES)  # shorter to read
    complaints = []
    for offset in rng.sample(range(written), 100):
        flip(segment, offset)
        try:
            log = open_log(copy)
        except CorruptLog as error:
            complaints.append(str(error))
        else:
            assert log.hard_state() == vote, f"byte {offset}"
            assert tuple(log.entries(1, last, 1 << 40)) == entries, f"byte {offset}"
            log.close()
        flip(segment, offset)
    assert len(complaints) > 90
    for complaint in complaints:
        assert segment.name in complaint
        assert "offset" in complaint


def test_a_master_with_a_flipped_byte_in_its_log_refuses_to_start_and_the_others_go_on(
    group: MasterGroup, rng: Random
) -> None:
    before = make_directories(group, "log-before")
    name = follower_of(group)
    directory = group.masters[name].directory
    group.kill(name)
    whole = copy_of(directory, "whole")
    segment = newest_segment(directory)
    flip(segment, int(written_bytes(segment) * rng.uniform(0.1, 0.9)))

    check_that_it_refuses_to_start(group, name, segment)

    during = make_directories(group, "log-during")
    check_that_there_are(group, before + during)
    put_back(group, name, whole)
    check_that_there_are(group, before + during)


def test_a_flipped_byte_in_a_snapshot_is_made_good_from_the_log_or_refused(
    group: MasterGroup, rng: Random
) -> None:
    before = make_directories(group, "snapshot-before")
    name = follower_of(group)
    directory = group.masters[name].directory
    group.ask_to_stop(name)
    snapshot = keep_snapshot(directory, is_all=False)
    flip(snapshot, rng.randrange(snapshot.stat().st_size))
    group.start(name)
    group.wait_for_answer(name)
    during = make_directories(group, "snapshot-during")
    group.kill(name)
    assert "going on from an older snapshot and the log" in group.log(name)

    whole = copy_of(directory, "whole")
    snapshot = keep_snapshot(directory, is_all=True)
    flip(snapshot, rng.randrange(snapshot.stat().st_size))
    check_that_it_refuses_to_start(group, name, snapshot)

    put_back(group, name, whole)
    check_that_there_are(group, before + during)


def test_an_append_that_a_power_cut_left_half_written_is_dropped_without_a_word_to_anybody(
    group: MasterGroup,
) -> None:
    before = make_directories(group, "cut")
    name = follower_of(group)
    group.kill(name)
    offset = leave_cut_append(group.masters[name].directory)
    group.start(name)
    group.wait_for_answer(name)
    after = make_directories(group, "cut-after")
    check_that_there_are(group, before + after)
    assert f"dropped a cut append at offset {offset}" in group.log(name)


def test_an_old_copy_of_a_masters_directory_is_turned_away_and_harms_nobody(
    group: MasterGroup, tmp_path: Path
) -> None:
    with NamespaceWorkload(group.config, name="old-copy", seed=SEED) as work:
        work.wait_for_answers(50)
        name = follower_of(group)
        directory = group.masters[name].directory
        group.kill(name)
        old = copy_of(directory, "old")
        group.start(name)
        group.wait_for_answer(name)
        work.wait_for_answers(200)
        leader = group.wait_for_leader()
        before = group.report_of(leader)
        assert before is not None
        group.kill(name)
        directory.rename(directory.with_name("newest"))
        old.rename(directory)
        group.start(name)

        told = group.wait_until_ended(name)

        assert "its directory is an old copy" in told
        work.wait_for_answers(50)
        after = group.report_of(leader)
        assert after is not None
        assert (after.role, after.term) == ("leader", before.term)
        put_back(group, name, directory.with_name("newest"))
        work.wait_for_answers(50)
    operations = work.read_everything()
    work.history.save(tmp_path / "history.jsonl")
    assert check(operations, NamespaceModel()).ok
    assert not work.errors


def test_a_leader_that_comes_back_from_an_old_copy_of_its_directory_harms_nobody(
    group: MasterGroup, tmp_path: Path
) -> None:
    with NamespaceWorkload(group.config, name="old-leader", seed=SEED) as work:
        work.wait_for_answers(50)
        leader = group.wait_for_leader()
        directory = group.masters[leader].directory
        group.kill(leader)
        old = copy_of(directory, "old")
        group.start(leader)
        group.wait_for_answer(leader)
        group.hand_over_to(leader)
        work.wait_for_answers(200)
        group.kill(leader)
        directory.rename(directory.with_name("newest"))
        old.rename(directory)
        group.start(leader)
        told = group.wait_until_ended(leader)
        assert "its directory is an old copy" in told
        work.wait_for_answers(50)
        put_back(group, leader, directory.with_name("newest"))
    operations = work.read_everything()
    work.history.save(tmp_path / "history.jsonl")
    assert check(operations, NamespaceModel()).ok
    assert not work.errors


def test_a_master_whose_directory_was_emptied_never_comes_back_under_its_old_id(
    group: MasterGroup,
) -> None:
    before = make_directories(group, "emptied")
    name = follower_of(group)
    directory = group.masters[name].directory
    group.kill(name)
    aside = directory.rename(directory.with_name("aside"))
    group.start(name)
    told = group.wait_until_ended(name)
    assert "cannot come back" in told
    assert not list(directory.glob("wal/*.wal"))
    (aside / "wal").rename(directory / "lost")
    shutil.copy(aside / "members.json", directory / "members.json")
    group.start(name)
    assert "cannot come back" in group.wait_until_ended(name)
    check_that_there_are(group, before)
    (directory / "lost").rename(aside / "wal")
    put_back(group, name, aside)
