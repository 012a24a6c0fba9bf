"""Random command sequences against an independent model, and their replay from the log."""

from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)

from minigfs.master import commands, name_table, removal
from minigfs.master.commands import decode_command, encode_command
from minigfs.master.listing import find_page, list_page
from minigfs.master.state import FileInode, initial_state
from minigfs.master.transition import transition
from tests.minigfs.master.harness import SERVERS, Driver
from tests.minigfs.master.tree_model import TreeModel


@pytest.fixture(scope="module", autouse=True)
def _small_limits() -> Iterator[None]:
    """So that most removals leave something to be reaped."""
    kept = name_table.BLOCK_NAMES_MAX, removal.REAP_WORK_MAX
    name_table.BLOCK_NAMES_MAX, removal.REAP_WORK_MAX = 2, 2
    yield
    name_table.BLOCK_NAMES_MAX, removal.REAP_WORK_MAX = kept


# Few paths, so that commands meet; "a-" sorts between "a" and what lies below "a".
NAMES = ("a", "a-", "é")
PATHS = (
    *(f"/{x}" for x in NAMES),
    *(f"/{x}/{y}" for x in NAMES for y in NAMES),
    *(f"/a/{x}/{y}" for x in ("a", "a-") for y in NAMES),
)
paths = st.sampled_from(("/", *PATHS))
picks = st.integers(0, 1000)  # of a path that exists


class TreeMachine(RuleBasedStateMachine):
    """Every command's outcome, and the tree after it, are the model's."""

    files = Bundle("files")

    def __init__(self) -> None:
        super().__init__()
        self.driver = Driver()
        self.model = TreeModel()

    def run(self, command, change) -> None:
        reply = self.driver.apply(command)
        code = reply.code if isinstance(reply, commands.Refused) else None
        assert code == self.model.outcome(change), (command, reply)

    def pick(self, number: int, spare: str) -> str:
        """Mostly a path that exists, since most changes of others are refused alike."""
        known = sorted(self.model.entries)[1:] or ["/"]
        return spare if number % 4 == 0 else known[number % len(known)]

    @rule(path=paths, parents=st.booleans(), exist_ok=st.booleans())
    def make_directory(self, path, parents, exist_ok) -> None:
        self.run(
            commands.MakeDirectory(1, path, parents, exist_ok),
            lambda: self.model.make_directory(path, parents=parents, exist_ok=exist_ok),
        )

    @rule(number=picks, spare=paths, exclusive=st.booleans(), size=st.integers(0, 2500))
    def write(self, number, spare, exclusive, size) -> None:
        file_id = self.driver.open_file()
        if size:
            self.driver.allocate(file_id, 0, 3)
        path = self.pick(number, spare)
        command = self.driver.publish_command(file_id, path, size, exclusive=exclusive)
        self.run(
            command,
            lambda: self.model.publish(path, (file_id, size), exclusive=exclusive),
        )

    @rule(target=files, path=paths, exclusive=st.booleans(), count=st.integers(0, 2))
    def create(self, path, exclusive, count):
        command = commands.CreateFile(2, path, exclusive, 3)
        self.run(command, lambda: self.model.check_publish(path, exclusive=exclusive))
        file_id = self.driver.state.next_file_id - 1
        if file_id not in self.driver.state.temporary:
            return multiple()
        if count:
            self.driver.allocate(file_id, 0, count)
        return file_id

    @rule(file_id=files, first=st.integers(0, 3), count=st.integers(1, 2))
    def allocate(self, file_id, first, count) -> None:
        file = self.driver.state.temporary.get(file_id)
        reply = self.driver.apply(commands.AllocateChunks(3, file_id, first, (SERVERS,) * count))
        allowed = file is not None and first <= len(file.chunks)
        assert isinstance(reply, commands.ChunksAllocated) == allowed

    @rule(file_id=consumes(files))
    def discard(self, file_id) -> None:
        self.driver.apply(commands.DiscardFiles(4, (file_id,)))

    @rule(number=picks, spare=paths, other=picks, destination=paths, replace=st.booleans())
    def rename(self, number, spare, other, destination, replace) -> None:
        source = self.pick(number, spare)
        if other % 3 == 0:
            destination = self.pick(other, destination)
        elif other % 3 == 1:
            destination = source + "/x"
        self.run(
            commands.Rename(5, source, destination, replace),
            lambda: self.model.rename(source, destination, replace=replace),
        )

    @rule(number=picks, spare=paths, recursive=st.booleans())
    def remove(self, number, spare, recursive) -> None:
        path = self.pick(number, spare)
        self.run(
            commands.Remove(6, path, recursive),
            lambda: self.model.remove(path, recursive=recursive),
        )

    @rule()
    def reap(self) -> None:
        self.driver.apply(commands.Reap(7))

    @rule(number=picks)
    def ask_again_for_a_published_file(self, number) -> None:
        """Its path now, if it has one: what lies in a removed directory has none."""
        inodes = [i for i in self.driver.state.inodes.values() if isinstance(i, FileInode)]
        if not inodes:
            return
        inode = inodes[number % len(inodes)]
        reply = self.driver.apply(commands.PublishFile(8, inode.file_id, "/a", (), False))
        path = next(
            (p for p, token in self.model.entries.items() if token and token[0] == inode.file_id),
            None,
        )
        if path is None:
            assert isinstance(reply, commands.Refused)
            assert reply.code == "writer-fenced"
        else:
            assert isinstance(reply, commands.FilePublished)
            assert reply.path == path

    @rule()
    def forget(self) -> None:
        self.driver.apply(commands.ForgetGarbage(7, tuple(self.driver.state.garbage)))

    @invariant()
    def trees_are_equal(self) -> None:
        state = self.driver.state
        files = sum(token is not None for token in self.model.entries.values())
        assert state.file_count == files
        assert state.directory_count == len(self.model.entries) - files - 1
        found = {}
        for entry in find_page(state, "/", "", 10_000).entries:
            inode = state.inodes[entry.file_id]
            is_file = isinstance(inode, FileInode)
            found[entry.path] = (inode.file_id, inode.size_bytes) if is_file else None
        assert {"/": None, **found} == self.model.entries

    @rule(path=paths, start=st.one_of(st.just(""), paths), limit=st.integers(1, 3))
    def page_through(self, path, start, limit) -> None:
        for top in ("/", path if self.model.is_dir(path) else "/"):
            below = sorted(self.model.below(top), key=str.encode)
            prefix = top if top == "/" else top + "/"
            children = [p for p in below if "/" not in p[len(prefix) :]]
            for page_of, expected in ((find_page, below), (list_page, children)):
                after, pages, more = start, [], True
                while more:
                    page = page_of(self.driver.state, top, after, limit)
                    pages += [entry.path for entry in page.entries]
                    more = page.more
                    after = pages[-1] if pages else after
                assert pages == [p for p in expected if p.encode() > start.encode()]

    def teardown(self) -> None:
        """The log, encoded and decoded, replays to an equal state."""
        state = initial_state()
        for command in self.driver.log:
            state, _ = transition(state, decode_command(encode_command(command)))
        assert state == self.driver.state
        while self.driver.state.condemned:
            self.driver.apply(commands.Reap(9))
        self.trees_are_equal()


TestTree = TreeMachine.TestCase
TestTree.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
