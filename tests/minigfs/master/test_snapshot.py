"""A frozen file system, restored elsewhere, is the file system that was frozen."""

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, FileId
from minigfs.master import commands, name_table, release, removal, snapshot
from minigfs.master.commands import encode_command
from minigfs.master.machine import FileSystemMachine
from minigfs.master.server_place import ServerPlace
from minigfs.master.state import DirectoryInode, initial_state
from tests.minigfs.master.harness import SERVERS, Driver


@pytest.fixture(scope="module", autouse=True)
def _small_limits() -> Iterator[None]:
    """So that a few names are several blocks, a few chunks several records, and both are more than
    one step of a removal, or of letting go what was frozen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(name_table, "BLOCK_NAMES_MAX", 3)
        patch.setattr(snapshot, "ROWS_PER_RECORD", 4)
        patch.setattr(removal, "REAP_WORK_MAX", 2)
        patch.setattr(release, "FREED_MAX", 2)
        patch.setattr(release, "MANY", 1)
        yield


NAMES = ("a", "a-", "b", "c", "d", "é", "f", "g")
paths = st.one_of(
    st.sampled_from(NAMES).map("/{}".format),
    st.tuples(st.sampled_from(("a", "b")), st.sampled_from(NAMES)).map("/{0[0]}/{0[1]}".format),
)
makes = st.tuples(st.just("make"), paths)
writes = st.tuples(st.just("write"), paths, st.integers(0, 5000), st.booleans())
leaves = st.tuples(st.just("leave open"), st.just("/new"), st.integers(0, 5))
moves = st.tuples(st.just("move"), paths, paths)
removals = st.tuples(st.just("remove"), paths)
sweeps = st.tuples(st.just("sweep"), st.integers(1, 30))
reaps = st.just(("reap",))
steps = st.lists(
    st.one_of(makes, writes, writes, leaves, moves, removals, sweeps, reaps), max_size=40
)


def run(driver: Driver, step: tuple) -> None:
    match step:
        case ("make", path):
            driver.apply(commands.MakeDirectory(1, path, True, True))
        case ("write", path, size_bytes, closed):
            reply = driver.apply(commands.CreateFile(2, path, False, 3))
            if isinstance(reply, commands.FileCreated):
                driver.allocate(reply.file_id, 0, 6)
                if closed:
                    driver.apply(driver.publish_command(reply.file_id, path, size_bytes))
        case ("leave open", path, chunk_count):
            driver.allocate(driver.open_file(path), 0, chunk_count)
        case ("move", source, target):
            driver.apply(commands.Rename(3, source, target, True))
        case ("remove", path):
            driver.apply(commands.Remove(4, path, True))
        case ("reap",):
            driver.apply(commands.Reap(7))
        case ("sweep", number):
            driver.apply(commands.DiscardFiles(5, (FileId(number),)))
            driver.apply(commands.ForgetGarbage(6, (ChunkHandle(number), ChunkHandle(7))))


def machine_of(driver: Driver) -> FileSystemMachine:
    machine = FileSystemMachine()
    machine.adopt(driver.state)
    return machine


@given(before=steps, after=steps)
def test_a_restored_file_system_is_the_frozen_one_and_goes_on_like_it(before, after) -> None:
    driver = Driver()
    for step in before:
        run(driver, step)
    frozen_state, entries_before = driver.state, len(driver.log)
    original = machine_of(driver)
    frozen = original.freeze()
    for step in after:
        run(driver, step)
    tail = [encode_command(command) for command in driver.log[entries_before:]]
    replies = [original.apply(1, command) for command in tail]

    copy = FileSystemMachine()
    copy.adopt(Driver().state)
    copy.restore(frozen)  # drawn only now, after the original has gone on
    assert copy.state == frozen_state
    assert list(copy.freeze()) == list(snapshot.freeze_state(frozen_state))
    assert [copy.apply(1, command) for command in tail] == replies
    assert copy.state == original.state == driver.state


def test_the_steps_above_reach_what_a_state_can_have() -> None:
    driver = Driver()
    for step in (
        *(("write", f"/{name}", 1 + 1024 * number, True) for number, name in enumerate(NAMES[:6])),
        ("make", "/g"),
        ("move", "/a", "/g/a"),
        ("leave open", "/f", 2),
        ("write", "/b/a", 10, True),
        ("write", "/h/b", 4000, True),
        ("make", "/h/c/d"),
        ("remove", "/h"),
        ("remove", "/f"),
    ):
        run(driver, step)
    state = driver.state
    root = state.inodes[FileId(1)]
    assert isinstance(root, DirectoryInode)
    assert len(list(root.children.blocks())) > 1
    assert min(len(state.chunks), len(state.garbage), len(state.temporary)) > 0
    assert any(entry.chunks for entry in state.condemned.values())
    assert any(len(entry.children) for entry in state.condemned.values())
    assert len(list(snapshot.freeze_state(state))) > 10


def test_where_servers_are_found_is_kept() -> None:
    driver, count = Driver(), 10
    for port in (1, 2):
        places = (
            ServerPlace(ChunkserverId(f"s{n}"), f"h{n}:{port}", f"h{n}", "unix:/x")
            for n in range(count)
        )
        driver.apply(commands.PlaceServers(1, tuple(places)))
    copy = FileSystemMachine()
    copy.restore(machine_of(driver).freeze())
    assert copy.state == driver.state
    assert {place.address for place in copy.state.places.values()} == {
        f"h{n}:2" for n in range(count)
    }


def test_nothing_restores_to_the_state_before_the_first_entry() -> None:
    machine = machine_of(Driver())
    machine.restore(iter(()))
    assert machine.state == initial_state()
    machine.restore(FileSystemMachine().freeze())
    assert machine.state == initial_state()


def test_a_restored_directory_has_the_blocks_it_had() -> None:
    """Out of order and with gaps, so that building it anew would give other blocks."""
    driver = Driver()
    for number in (5, 1, 9, 3, 7, 2, 8, 4, 6, 0):
        driver.make_directory(f"/d{number}")
    driver.apply(commands.Remove(1, "/d4", False))
    copy = FileSystemMachine()
    copy.restore(machine_of(driver).freeze())
    assert copy.state.inodes[FileId(1)] == driver.state.inodes[FileId(1)]


def test_restored_chunks_share_their_replica_sets() -> None:
    driver = Driver()
    driver.write("/a", 9 * 1024)
    copy = FileSystemMachine()
    copy.restore(machine_of(driver).freeze())
    assert len({id(chunk.replicas) for chunk in copy.state.chunks.values()}) == 1


def test_a_restored_chunk_keeps_its_version() -> None:
    driver = Driver()
    driver.write("/a", 10)
    handle, chunk = next(iter(driver.state.chunks.items()))
    newer = msgspec.structs.replace(chunk, version=ChunkVersion(1 << 40))
    driver.state = msgspec.structs.replace(
        driver.state, chunks=driver.state.chunks.set(handle, newer)
    )
    copy = FileSystemMachine()
    copy.restore(machine_of(driver).freeze())
    assert copy.state.chunks[handle] == newer


def test_chunks_share_the_names_of_their_servers() -> None:
    """Every command brings new strings; a million chunks must not keep three each."""
    machine = FileSystemMachine()
    driver = Driver()
    driver.write("/a", 2 * 1024)
    driver.write("/b", 2 * 1024)
    for command in driver.log:
        machine.apply(1, encode_command(command))
    chunks = machine.state.chunks.values()
    assert {chunk.replicas for chunk in chunks} == {SERVERS[:2]}
    assert len({id(server) for chunk in chunks for server in chunk.replicas}) == 2


def test_the_order_of_records_depends_on_the_state_alone() -> None:
    """Two histories, one state: chunks deleted in between leave no trace."""
    straight, winding = Driver(), Driver()
    for driver in (straight, winding):
        for number in range(200):
            driver.allocate(driver.open_file(f"/{number}"), 0, 1)
        driver.apply(commands.DiscardFiles(1, tuple(FileId(number) for number in range(2, 150))))
        while driver.state.condemned:
            driver.apply(commands.Reap(1))
    handles = sorted(winding.state.garbage)
    for handle in reversed(handles):
        winding.apply(commands.ForgetGarbage(1, (handle,)))
    straight.apply(commands.ForgetGarbage(1, tuple(handles)))
    assert straight.state == winding.state
    records = [list(snapshot.freeze_state(driver.state)) for driver in (straight, winding)]
    assert records[0] == records[1]


def test_a_snapshot_keeps_its_bytes() -> None:
    """The format of files that later releases read."""
    driver = Driver()
    driver.write("/d/f", 1500)
    driver.allocate(driver.open_file("/t"), 0, 1)
    driver.apply(commands.Remove(9, "/d/f", False))
    driver.write("/d/g", 10)
    driver.write("/e/f/g", 2500)
    for name in "ijkl":
        driver.make_directory(f"/h/{name}")
    driver.apply(commands.Remove(9, "/e", True))
    driver.apply(commands.Remove(9, "/h", True))
    assert [record.hex() for record in machine_of(driver).freeze()] == KEPT_RECORDS
    before_trash = [HEAD_BEFORE_TRASH, *RECORDS_BEFORE_APPENDS[1:]]
    for kept in (KEPT_RECORDS, RECORDS_BEFORE_APPENDS, before_trash):
        copy = FileSystemMachine()
        copy.restore(bytes.fromhex(record) for record in kept)
        assert copy.state == driver.state


HEAD_BEFORE_TRASH = (
    "980083aa636c75737465725f6964a163ab6368756e6b5f6279746573cd0400ab7265706c69636174696f6e03"
    "0e0801010009"
)
KEPT_RECORDS: list[str] = [
    (
        "9b0083aa636c75737465725f6964a163ab6368756e6b5f6279746573cd0400ab7265706c69636174696f6e"
        "030e0801010009000000"
    ),
    "920592920693050607920990",
    "9301099197020da16c05050000",
    "93010191970203a16408080100",
    "930103919b0105a1670608030ab0353261393861393436313863363837629104c2c2",
    "9202919504a22f7406039103",
    (
        "93039293a27330a27331a2733292a27330a273319497030103000000c297040103010a1cc29705010301cd"
        "040023c29706010301cd04002ac2"
    ),
    "93039192a27330a27331919707010300cd01c431c2",
    "93049192a27330a2733192920100920200",
]
RECORDS_BEFORE_APPENDS: list[str] = [
    (
        "9b0083aa636c75737465725f6964a163ab6368756e6b5f6279746573cd0400ab7265706c69636174696f6e03"
        "0e0801010009000000"
    ),
    "920592920693050607920990",
    "9301099197020da16c05050000",
    "93010191970203a16408080100",
    "93010391990105a1670608030ab0353261393861393436313863363837629104",
    "9202919504a22f7406039103",
    (
        "93039293a27330a27331a2733292a27330a27331949603010300000096040103010a1c9605010301cd040023"
        "9606010301cd04002a"
    ),
    "93039192a27330a27331919607010300cd01c431",
    "93049192a27330a2733192920100920200",
]
