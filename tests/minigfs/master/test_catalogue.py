"""What chunkservers are told adds up to the names of all files they hold chunks of."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from minigfs.ids import ChunkserverId, FileId
from minigfs.master import catalogue, commands
from minigfs.master.catalogue import CatalogueFeed
from minigfs.master.heartbeat_messages import CatalogueBatch
from minigfs.master.namespace import path_of
from minigfs.master.state import FileInode, FileSystemState
from tests.minigfs.master.harness import CHUNK_BYTES, SERVERS, Driver


@contextmanager
def small_batches() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "BATCH_FILES_MAX", 2)
        patch.setattr(catalogue, "STEP_FILES_MAX", 3)
        patch.setattr(catalogue, "QUEUE_FILES_MAX", 4)
        yield


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with small_batches():
        yield


class Listener:
    """A chunkserver's catalogue, as a dictionary."""

    def __init__(self, chunkserver_id: ChunkserverId) -> None:
        self.chunkserver_id = chunkserver_id
        self.stamp = 0
        self.rows: dict[FileId, tuple[str, int]] = {}

    def beat(self, feed: CatalogueFeed, now_ms: int, *, is_lost: bool = False) -> bool:
        batch = feed.batch(self.chunkserver_id, self.stamp, now_ms=now_ms)
        if batch is None:
            return False
        if not is_lost:
            self.take(batch)
        return True

    def take(self, batch: CatalogueBatch) -> None:
        assert batch.stamp > self.stamp
        for file in batch.files:
            self.rows[file.file_id] = (file.path, batch.stamp)
        if batch.forget_below:
            self.rows = {i: row for i, row in self.rows.items() if row[1] >= batch.forget_below}
        self.stamp = batch.stamp

    @property
    def paths(self) -> dict[FileId, str]:
        return {file_id: path for file_id, (path, _) in self.rows.items()}


def held(state: FileSystemState, chunkserver_id: ChunkserverId) -> dict[FileId, str]:
    """The files that a server has a chunk of, and those without chunks."""
    found = {}
    for inode in state.inodes.values():
        if isinstance(inode, FileInode):
            chunks = [state.chunks[handle] for handle in inode.chunks]
            if not chunks or any(chunkserver_id in chunk.replicas for chunk in chunks):
                path = path_of(state, inode)
                assert path is not None
                found[inode.file_id] = path
    return found


def settle(feed: CatalogueFeed, driver: Driver, listeners: list[Listener], now_ms: int) -> int:
    """Long enough for a whole pass after all that happened."""
    for _ in range(150):
        now_ms += 1_000
        feed.step(driver.state, now_ms)
        for listener in listeners:
            while listener.beat(feed, now_ms):
                pass
    return now_ms


def test_a_published_file_is_told_at_once_to_those_who_hold_it() -> None:
    driver, feed = Driver(), CatalogueFeed(3)
    first, last = Listener(SERVERS[0]), Listener(SERVERS[2])
    for listener in (first, last):
        listener.beat(feed, 0)
    file_id = driver.write("/d/a", 2 * CHUNK_BYTES)
    feed.published(driver.state, file_id)
    assert first.beat(feed, 1)
    assert first.paths == {file_id: "/d/a"}
    assert not last.beat(feed, 1)
    driver.apply(commands.Rename(9, "/d/a", "/b", False))
    feed.moved(driver.state, "/b")
    first.beat(feed, 2)
    assert first.paths == {file_id: "/b"}


def test_an_empty_file_is_told_to_everybody() -> None:
    driver, feed = Driver(), CatalogueFeed(1)
    listeners = [Listener(server) for server in SERVERS]
    for listener in listeners:
        listener.beat(feed, 0)
    file_id = driver.write("/empty")
    feed.published(driver.state, file_id)
    for listener in listeners:
        listener.beat(feed, 1)
    assert [list(listener.paths.values()) for listener in listeners] == [["/empty"]] * 3


def test_a_pass_ends_and_the_next_one_waits_for_a_change() -> None:
    driver, feed = Driver(), CatalogueFeed(1)
    driver.write("/a", 10)
    listener = Listener(SERVERS[0])
    now_ms = settle(feed, driver, [listener], 0)
    stamp = listener.stamp
    now_ms = settle(feed, driver, [listener], now_ms)
    assert listener.stamp == stamp, "nothing changed, nothing is told"
    driver.make_directory("/new")
    settle(feed, driver, [listener], now_ms)
    assert listener.stamp > stamp


def test_a_silent_server_does_not_hold_up_the_others() -> None:
    driver, feed = Driver(), CatalogueFeed(1)
    silent, listener = Listener(SERVERS[1]), Listener(SERVERS[0])
    silent.beat(feed, 0)
    for number in range(30):
        driver.write(f"/f{number}", 10)
    now_ms = settle(feed, driver, [listener], 0)
    assert listener.paths == held(driver.state, SERVERS[0])
    settle(feed, driver, [silent, listener], now_ms)
    assert silent.paths == held(driver.state, SERVERS[1])


def test_a_step_looks_at_a_bounded_number_of_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand files may have a million, and the master answers nobody meanwhile."""
    monkeypatch.setattr(catalogue, "STEP_FILES_MAX", 1_000)
    monkeypatch.setattr(catalogue, "STEP_CHUNKS_MAX", 5)
    monkeypatch.setattr(catalogue, "QUEUE_FILES_MAX", 1_000)
    driver, feed = Driver(), CatalogueFeed(1)
    listener = Listener(SERVERS[0])
    listener.beat(feed, 0)
    for number in range(6):
        driver.write(f"/f{number}", 3 * CHUNK_BYTES)
    told = []
    for now_ms in range(0, 4_000, 1_000):
        feed.step(driver.state, now_ms)
        listener.beat(feed, now_ms)
        told.append(len(listener.rows))
        listener.beat(feed, now_ms)
    assert told == [2, 4, 6, 6]


class Telling(RuleBasedStateMachine):
    """Files come, move and go; batches are lost, servers restart, leaders change."""

    def __init__(self) -> None:
        super().__init__()
        self.small = small_batches()
        self.small.__enter__()
        self.driver = Driver()
        for name in "ab":
            self.driver.make_directory(f"/{name}")
        self.term, self.now_ms = 1, 0
        self.feed = CatalogueFeed(1)
        self.listeners = [Listener(server) for server in SERVERS]
        self.count = 0

    @rule(directory=st.sampled_from("ab"), size=st.integers(0, 3))
    def write(self, directory: str, size: int) -> None:
        self.count += 1
        file_id = self.driver.write(f"/{directory}/{self.count % 5}", size * CHUNK_BYTES)
        self.feed.published(self.driver.state, file_id)

    @rule(source=st.sampled_from("ab"), to=st.sampled_from("ab"), name=st.integers(0, 4))
    def rename(self, source: str, to: str, name: int) -> None:
        path = f"/{to}/{(name + 1) % 5}"
        self.driver.apply(commands.Rename(9, f"/{source}/{name}", path, True))
        self.feed.moved(self.driver.state, path)

    @rule()
    def exchange_directories(self) -> None:
        for source, target in (("/a", "/c"), ("/b", "/a"), ("/c", "/b")):
            self.driver.apply(commands.Rename(9, source, target, False))

    @rule(directory=st.sampled_from("ab"), name=st.integers(0, 4))
    def remove(self, directory: str, name: int) -> None:
        self.driver.apply(commands.Remove(9, f"/{directory}/{name}", False))

    @rule(number=st.integers(0, 2), is_lost=st.booleans())
    def beat(self, number: int, is_lost: bool) -> None:
        self.listeners[number].beat(self.feed, self.now_ms, is_lost=is_lost)

    @rule()
    def step(self) -> None:
        self.now_ms += 1_000
        self.feed.step(self.driver.state, self.now_ms)

    @rule(number=st.integers(0, 2))
    def restart(self, number: int) -> None:
        self.listeners[number].stamp = 0

    @rule(number=st.integers(0, 2))
    def lose_the_catalogue(self, number: int) -> None:
        self.listeners[number] = Listener(SERVERS[number])

    @rule()
    def another_leads(self) -> None:
        self.term += 1
        self.feed = CatalogueFeed(self.term)

    @rule()
    def rest(self) -> None:
        self.now_ms = settle(self.feed, self.driver, self.listeners, self.now_ms)
        for listener in self.listeners:
            assert listener.paths == held(self.driver.state, listener.chunkserver_id)

    def teardown(self) -> None:
        self.rest()
        self.small.__exit__(None, None, None)


TestTelling = Telling.TestCase
TestTelling.settings = settings(max_examples=40, stateful_step_count=30)
