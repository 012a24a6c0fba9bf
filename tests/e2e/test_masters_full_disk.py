"""The disk of one master, of the leader, of all is full: a clear refusal at worst, and no damage.

Each master lives on a small file system of its own. A log has its space ahead, so a segment is cut
short while its master is stopped: the space that is left is used up by some changes.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from minigfs.client.client import MinigfsClient
from minigfs.errors import ClusterError, MinigfsError, NoSpace
from tests.linearizability.checker import check
from tests.linearizability.models import NamespaceModel
from tests.master_group import MasterGroup
from tests.member_directories import nearly_fill_segment
from tests.namespace_workload import NamespaceWorkload
from tests.small_disk import SmallDisk, small_disk

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(120)]

DISK_BYTES = 144 << 20  # two segments of a log and a little more
RESERVE_BYTES = 1 << 20  # that only votes and the like may use
PATIENCE_S = 20.0
STALL_S_MAX = 3.0


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, SmallDisk]]:
    root = tmp_path_factory.mktemp("disks")
    with ExitStack() as stack:
        yield {name: stack.enter_context(small_disk(root / name, DISK_BYTES)) for name in "abc"}


@pytest.fixture(scope="module")
def group(
    disks: dict[str, SmallDisk], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MasterGroup]:
    directories = {name: disk.root / "master" for name, disk in disks.items()}
    root = tmp_path_factory.mktemp("masters")
    with MasterGroup(root, timeout_ms=30_000, directories=directories) as group:
        yield group


def fill(group: MasterGroup, disks: dict[str, SmallDisk], names: list[str], left: int) -> None:
    """Fill the disks of these masters, which are stopped meanwhile."""
    for name in names:
        group.ask_to_stop(name)
    for name in names:
        nearly_fill_segment(group.masters[name].directory, left_bytes=left)
        disks[name].fill()
    for name in names:
        group.start(name)
    for name in names:
        group.wait_for_answer(name)
        assert "no space for the next segment" in group.log(name)


def make_until_refused(client: MinigfsClient, name: str) -> tuple[list[str], MinigfsError]:
    made: list[str] = []
    while True:
        path = f"/{name}-{len(made)}-" + "x" * 200
        try:
            client.make_directory(path)
        except MinigfsError as error:
            return made, error
        made.append(path)


def make_as_soon_as_possible(client: MinigfsClient, path: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return client.make_directory(path)
        except NoSpace:
            assert time.monotonic() < deadline, "there is space again, and it is not taken"
            time.sleep(0.05)


def test_a_follower_with_a_full_disk_holds_up_nobody_and_catches_up(
    group: MasterGroup, disks: dict[str, SmallDisk]
) -> None:
    full = group.others(group.wait_for_leader())[0]
    fill(group, disks, [full], 8 * 1024)
    with NamespaceWorkload(group.config, name="follower-full") as work:
        work.wait_for_answers(200)
        disks[full].free()
        work.wait_for_answers(50)
    assert work.slowest_answer_s() < STALL_S_MAX
    assert check(work.read_everything(), NamespaceModel()).ok
    assert not work.errors
    leader = group.report_of(group.wait_for_leader())
    assert leader is not None
    deadline = time.monotonic() + PATIENCE_S
    while (report := group.report_of(full)) is None or report.commit_index < leader.commit_index:
        assert time.monotonic() < deadline, f"{report}, {leader}"
        time.sleep(0.05)


def test_a_leader_with_a_full_disk_hands_over_to_one_with_room(
    group: MasterGroup, disks: dict[str, SmallDisk]
) -> None:
    full = group.others(group.wait_for_leader())[0]
    fill(group, disks, [full], 2 * RESERVE_BYTES)
    with NamespaceWorkload(group.config, name="leader-full") as work:
        work.wait_for_answers(50)
        group.hand_over_to(full)  # which it may do for a few milliseconds only
        handed_over = time.monotonic()
        while "the disk is full" not in group.log(full) or group.wait_for_leader() == full:
            assert time.monotonic() < handed_over + STALL_S_MAX, "the full one goes on leading"
        work.wait_for_answers(100)
    assert work.slowest_answer_s() < STALL_S_MAX
    assert check(work.read_everything(), NamespaceModel()).ok
    assert not work.errors
    disks[full].free()


def test_all_disks_full_is_a_clear_refusal_and_goes_on_when_there_is_space(
    group: MasterGroup, disks: dict[str, SmallDisk]
) -> None:
    client = MinigfsClient(group.config)
    client.make_directory("/before")
    fill(group, disks, list(disks), RESERVE_BYTES + 64 * 1024)
    group.wait_for_leader()
    term = client.report().elections

    made, refusal = make_until_refused(client, "full")

    assert isinstance(refusal, NoSpace)
    assert "disk is full" in str(refusal)
    assert len(str(refusal).splitlines()) == 1
    there = {status.path for status in client.list_directory("/")}  # reading goes on
    assert there >= {"/before", *made}
    assert client.report().elections == term, "a full disk is no reason for an election"
    for disk in disks.values():
        disk.free()
    make_as_soon_as_possible(client, "/after")
    for name in group.masters:  # what each holds can be read back
        group.kill(name)
    group.start_missing()
    there = {status.path for status in client.list_directory("/")}
    assert there >= {"/before", "/after", *made}


def test_a_leader_can_be_elected_while_all_disks_are_full(
    group: MasterGroup, disks: dict[str, SmallDisk]
) -> None:
    client = MinigfsClient(group.config)
    fill(group, disks, list(disks), RESERVE_BYTES + 16 * 1024)
    group.wait_for_leader()
    made, refusal = make_until_refused(client, "elected")
    assert isinstance(refusal, NoSpace)
    leader = group.wait_for_leader()
    group.kill(leader)
    assert group.wait_for_leader(group.others(leader)) != leader
    assert {status.path for status in client.list_directory("/")} >= set(made)
    _, refusal = make_until_refused(client, "again")  # its log may have some bytes more room
    assert isinstance(refusal, NoSpace | ClusterError)
    for disk in disks.values():
        disk.free()
    group.start(leader)
    make_as_soon_as_possible(client, "/elected")
