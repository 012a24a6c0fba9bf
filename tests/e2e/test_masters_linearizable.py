"""Three real masters under faults: what clients saw is one order of operations, each done once.

Every test runs clients on a small tree, does something terrible to the masters meanwhile, lets the
clients read everything afterwards, and has the history judged. A history that is judged wrong is
kept; the assertion says where and how to look at it again.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from minigfs.client.client import MinigfsClient
from minigfs.errors import ClusterError, FileMissing
from minigfs.master.messages import Stat
from tests.linearizability.checker import Answer, Budget, check
from tests.linearizability.history import History
from tests.linearizability.models import NamespaceModel
from tests.master_group import MasterGroup
from tests.namespace_workload import NamespaceWorkload
from tests.storage_cluster import StorageCluster

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(120)]

STALL_S_MAX = 3.0
JUDGE_S = 20.0
SEED = int(os.environ.get("MASTERS_SEED", "1"))


CLIENT_TIMEOUT_MS = 30_000  # a whole group starts anew in that, on a busy machine


@pytest.fixture(scope="module")
def shared_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MasterGroup]:
    root = tmp_path_factory.mktemp("masters")
    with MasterGroup(root, timeout_ms=CLIENT_TIMEOUT_MS) as group:
        yield group


@pytest.fixture
def group(shared_group: MasterGroup) -> MasterGroup:
    """Whole, whatever the test before did to it."""
    shared_group.links.heal()
    shared_group.start_missing()
    return shared_group


@pytest.fixture
def work(group: MasterGroup, request: pytest.FixtureRequest) -> NamespaceWorkload:
    return NamespaceWorkload(group.config, name=request.node.name, seed=SEED)


@pytest.fixture
def rng() -> Random:
    return Random(SEED)


def _judge(work: NamespaceWorkload, kept: Path) -> None:
    """Everything was one copy's work, and nobody was left without an answer."""
    operations = work.read_everything()
    work.history.save(kept)
    deadline = time.monotonic() + JUDGE_S
    verdict = check(
        operations, NamespaceModel(), Budget(expired=lambda: time.monotonic() > deadline)
    )
    again = f"python -m tests.linearizability {kept} --model namespace"
    assert verdict.ok, f"seed {SEED}: {verdict}\n{again}"
    assert not work.errors, f"seed {SEED}: {work.errors[:5]}"


def _check_stalls(work: NamespaceWorkload) -> None:
    slowest_s = work.slowest_answer_s()
    assert slowest_s < STALL_S_MAX, f"a client waited {slowest_s:.1f} s for an answer"


def test_leaders_killed_at_random_moments(
    group: MasterGroup, work: NamespaceWorkload, rng: Random, tmp_path: Path
) -> None:
    with work:
        for _ in range(4):
            work.wait_for_answers(50)
            time.sleep(rng.uniform(0.0, 1.0))
            leader = group.wait_for_leader()
            group.kill(leader)
            work.wait_for_answers(50)
            group.start(leader)
            group.wait_for_answer(leader)
    _check_stalls(work)
    _judge(work, tmp_path / "history.jsonl")


def test_a_directory_of_ten_thousand_is_renamed_as_one_while_leaders_are_killed(
    group: MasterGroup, rng: Random
) -> None:
    """Each read of a place shows all of it or nothing, and each rename takes place once."""
    client = MinigfsClient(group.config)
    names = [f"{number:05}" for number in range(10_000)]
    for first in range(0, 10_000, 1_000):
        with client.transaction() as change:
            for name in names[first : first + 1_000]:
                change.make_directory(f"/many/a/{name}", parents=True)
    reads: Counter[tuple[str, int]] = Counter()
    stopped = threading.Event()
    crashes: list[BaseException] = []

    def rename_for_ever() -> None:
        source, target = "/many/a", "/many/b"
        while not stopped.is_set():
            client.rename(source, target)
            source, target = target, source
            stopped.wait(0.02)

    def read_for_ever(place: str) -> None:
        reader = MinigfsClient(group.config)
        while not stopped.is_set():
            first = [status.path for status in islice(reader.list_directory("/many"), 2)]
            assert len(first) == 1
            try:
                page = [one.path for one in islice(reader.list_directory(place), 4_000)]
            except FileMissing:
                page = []
            assert page in ([], [f"{place}/{name}" for name in names[:4_000]])
            reads[place, len(page)] += 1

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # raised again below
            crashes.append(error)

    works = [rename_for_ever, *(partial(read_for_ever, f"/many/{x}") for x in "ab")]
    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for _ in range(3):
        time.sleep(rng.uniform(1.0, 2.0))
        leader = group.wait_for_leader()
        group.kill(leader)
        time.sleep(1.0)
        group.start(leader)
        group.wait_for_answer(leader)
    stopped.set()
    for thread in threads:
        thread.join()
    assert not crashes, crashes
    assert reads.keys() == {(f"/many/{place}", size) for place in "ab" for size in (0, 4_000)}


def test_leader_paused_for_longer_than_an_election(
    group: MasterGroup, work: NamespaceWorkload, rng: Random, tmp_path: Path
) -> None:
    with work:
        for pause_s in (5.0, rng.uniform(0.5, 2.0)):
            work.wait_for_answers(50)
            time.sleep(rng.uniform(0.0, 0.5))
            leader = group.wait_for_leader()
            group.pause(leader)
            try:
                time.sleep(pause_s)
            finally:
                group.resume(leader)
            work.wait_for_answers(50)
    _check_stalls(work)
    _judge(work, tmp_path / "history.jsonl")


def test_leader_cut_off_from_the_others_but_not_from_its_clients(
    group: MasterGroup, work: NamespaceWorkload, rng: Random, tmp_path: Path
) -> None:
    with work:
        for _ in range(2):
            work.wait_for_answers(50)
            leader = group.wait_for_leader()
            group.links.isolate(leader)
            assert group.wait_for_leader(group.others(leader)) != leader
            work.wait_for_answers(50)
            time.sleep(rng.uniform(0.0, 1.0))
            group.links.heal()
            work.wait_for_answers(50)
    _check_stalls(work)
    _judge(work, tmp_path / "history.jsonl")


def test_a_follower_that_fell_behind_tells_the_past_only_to_who_asks_for_it(
    group: MasterGroup,
) -> None:
    """And the checker knows the past when it sees it: stale answers are no linearizable history."""
    follower = group.others(group.wait_for_leader())[0]
    client = MinigfsClient(group.config)
    client.make_directory("/seen-by-all")
    group.links.isolate(follower)
    history = History(clock=time.monotonic_ns)
    made = history.invoke("writer", ("mkdir", "/new"))
    client.make_directory("/new")
    history.ok(made)
    with pytest.raises(ClusterError):
        group.ask(follower, Stat(path="/new"))
    read = history.invoke("reader", ("stat", "/new"))
    with pytest.raises(FileMissing) as missing:
        group.ask(follower, Stat(path="/new", stale_ok=True))
    history.ok(read, ("refused", missing.value.code))

    verdict = check(history.operations(), NamespaceModel())

    assert verdict.answer is Answer.ILLEGAL


def test_links_cut_one_way_delayed_and_cut_in_part(
    group: MasterGroup, work: NamespaceWorkload, rng: Random, tmp_path: Path
) -> None:
    with work:
        for fault in ("deaf", "dumb", "partial", "slow"):
            work.wait_for_answers(50)
            leader = group.wait_for_leader()
            others = group.others(leader)
            match fault:
                case "deaf":
                    for other in others:
                        group.links.cut_one_way(other, leader)
                case "dumb":
                    for other in others:
                        group.links.cut_one_way(leader, other)
                case "partial":
                    group.links.cut(leader, rng.choice(others))
                case "slow":
                    for other in others:
                        group.links.delay(leader, other, rng.uniform(0.05, 0.3))
            time.sleep(rng.uniform(1.0, 2.0))
            work.wait_for_answers(10)  # with the fault still there
            group.links.heal()
    _judge(work, tmp_path / "history.jsonl")


def test_all_masters_killed_at_once(
    group: MasterGroup, work: NamespaceWorkload, tmp_path: Path
) -> None:
    with work:
        for _ in range(2):
            work.wait_for_answers(100)
            for name in group.masters:
                group.kill(name)
            for name in group.masters:
                group.start(name)
            work.wait_for_answers(50)
    _judge(work, tmp_path / "history.jsonl")


def test_masters_stopped_politely_one_after_the_other(
    group: MasterGroup, work: NamespaceWorkload, tmp_path: Path
) -> None:
    with work:
        for name in group.masters:
            work.wait_for_answers(50)
            group.ask_to_stop(name)
            work.wait_for_answers(20)
            group.start(name)
            group.wait_for_answer(name)
    _check_stalls(work)
    _judge(work, tmp_path / "history.jsonl")


def test_a_single_master_killed_and_restarted(tmp_path: Path) -> None:
    with (
        StorageCluster(tmp_path, chunk_bytes=1 << 20, chunkservers=1, replication=1) as cluster,
        NamespaceWorkload(cluster.config, seed=SEED) as work,
    ):
        for _ in range(3):
            work.wait_for_answers(100)
            cluster.kill_master()
            cluster.start_master()
            work.wait_for_answers(50)
        work.stop()
        _judge(work, tmp_path / "history.jsonl")
