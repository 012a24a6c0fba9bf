"""However much is removed, what one entry of the log does is bounded, and what users see is not
late."""

import pytest

from minigfs.errors import FileMissing
from minigfs.master import commands, trash
from minigfs.master.listing import find_page
from minigfs.master.name_table import BLOCK_NAMES_MAX
from minigfs.master.namespace import get_inode, split_path
from minigfs.master.removal import REAP_WORK_MAX
from minigfs.master.state import FileSystemState
from minigfs.master.transition import transition
from tests.minigfs.master.harness import CHUNK_BYTES, Driver, check_invariants

STEP_MAX = REAP_WORK_MAX + BLOCK_NAMES_MAX  # a block is taken whole


class Tree(Driver):
    """Checks invariants when asked, not after each of thousands of commands."""

    def apply(self, command: commands.Command) -> commands.CommandReply:
        self.log.append(command)
        self.state, reply = transition(self.state, command)
        return reply


def work_between(before: FileSystemState, after: FileSystemState) -> int:
    """Inodes taken out and chunks turned into garbage."""
    return len(before.inodes) - len(after.inodes) + len(after.garbage) - len(before.garbage)


def reap_all(tree: Tree) -> int:
    """Reap until nothing is left, each step within its bound; how many steps it took."""
    step_count = 0
    while tree.state.condemned:
        before = tree.state
        assert tree.apply(commands.Reap(9)) == commands.Done()
        assert 0 < work_between(before, tree.state) <= STEP_MAX
        step_count += 1
        check_invariants(tree.state)
    return step_count


@pytest.fixture
def tree() -> Tree:
    """5,000 directories in one, 3,000 files of one chunk in another, a long way down in a third."""
    tree = Tree()
    tree.make_directory("/keep/me")
    for number in range(5_000):
        tree.make_directory(f"/t/wide/{number}")
    for number in range(3_000):
        tree.write(f"/t/full/{number}", 100)
    tree.make_directory("/t" + "/deep" * 600)
    check_invariants(tree.state)
    return tree


def test_a_large_tree_is_out_of_sight_at_once_and_taken_apart_in_bounded_steps(tree) -> None:
    before = tree.state
    reply = tree.apply(commands.Remove(9, "/t", True))
    assert reply == commands.EntriesRemoved(3_000, 5_000 + 3 + 600)
    assert 0 < work_between(before, tree.state) <= STEP_MAX
    check_invariants(tree.state)
    assert (tree.state.file_count, tree.state.directory_count) == (0, 2)
    assert [e.path for e in find_page(tree.state, "/", "", 100).entries] == ["/keep", "/keep/me"]
    with pytest.raises(FileMissing):
        get_inode(tree.state, split_path("/t/wide/7"))

    left = work_between(before, tree.state)
    assert reap_all(tree) >= (3_000 * 2 + 5_603 - left) // STEP_MAX
    assert len(tree.state.inodes) == 4  # with two roots
    assert (len(tree.state.chunks), len(tree.state.garbage)) == (0, 3_000)


def test_the_path_of_a_large_tree_can_be_made_again_while_the_old_one_is_taken_apart(tree) -> None:
    tree.apply(commands.Remove(9, "/t", True))
    tree.write("/t/full/7", 300)
    tree.make_directory("/t/wide")
    assert tree.state.condemned
    reap_all(tree)
    paths = [entry.path for entry in find_page(tree.state, "/t", "", 100).entries]
    assert paths == ["/t/full", "/t/full/7", "/t/wide"]
    assert len(tree.state.chunks) == 1


def test_a_small_tree_is_gone_in_one_step() -> None:
    tree = Tree()
    for number in range(490):
        tree.write(f"/t/{number % 9}/{number}", 100)
    assert tree.apply(commands.Remove(9, "/t", True)) == commands.EntriesRemoved(490, 10)
    assert not tree.state.condemned
    assert len(tree.state.inodes) == 2  # the roots
    assert len(tree.state.garbage) == 490


def test_reaping_nothing_changes_nothing(tree) -> None:
    before = tree.state
    assert tree.apply(commands.Reap(9)) == commands.Done()
    assert tree.state == before


CHUNK_COUNT = 3 * REAP_WORK_MAX


def test_the_chunks_of_a_large_file_are_given_up_in_bounded_steps() -> None:
    """Removed, replaced by a rename, replaced by a publish, given up unpublished, or all in one."""
    tree = Tree()
    for path in ("/removed", "/renamed over", "/published over"):
        tree.write(path, CHUNK_COUNT * CHUNK_BYTES)
    given_up = tuple(tree.open_file() for _ in range(3))
    for file_id in given_up:
        tree.allocate(file_id, 0, CHUNK_COUNT)
    tree.write("/small")
    new = tree.open_file()
    for command in (
        commands.Remove(9, "/removed", False),
        commands.Rename(9, "/small", "/renamed over", True),
        tree.publish_command(new, "/published over"),
        commands.DiscardFiles(9, given_up),
    ):
        before = tree.state
        assert not isinstance(tree.apply(command), commands.Refused)
        assert len(tree.state.garbage) - len(before.garbage) == REAP_WORK_MAX
        check_invariants(tree.state)
    assert not tree.state.temporary
    assert reap_all(tree) == (6 * CHUNK_COUNT - 4 * REAP_WORK_MAX) // REAP_WORK_MAX
    assert len(tree.state.garbage) == 6 * CHUNK_COUNT


def test_a_writer_whose_file_was_given_up_is_fenced_while_its_chunks_are_taken_apart() -> None:
    tree = Tree()
    file_id = tree.open_file()
    tree.allocate(file_id, 0, CHUNK_COUNT)
    publish = tree.publish_command(file_id, "/f", 100)
    tree.apply(commands.DiscardFiles(9, (file_id,)))
    assert tree.state.condemned
    assert tree.refused(publish) == "writer-fenced"
    assert tree.refused(commands.AllocateChunks(9, file_id, 0, (("s1",),))) == "writer-fenced"
    tree.apply(commands.DiscardFiles(9, (file_id,)))
    reap_all(tree)


def test_publishing_again_what_lies_in_a_removed_tree_says_that_it_is_gone(tree) -> None:
    file_id = get_inode(tree.state, split_path("/t/full/2999")).file_id
    publish = commands.PublishFile(9, file_id, "/t/full/2999", (), False)
    assert isinstance(tree.apply(publish), commands.FilePublished)
    tree.apply(commands.Remove(9, "/t", True))
    while tree.state.condemned:
        assert tree.refused(publish) == "writer-fenced"
        tree.apply(commands.Reap(9))
    assert tree.refused(publish) == "writer-fenced"


def test_making_a_long_chain_of_directories_counts_each_once() -> None:
    driver = Driver()
    driver.make_directory("/a/b")
    driver.make_directory("/a/b" + "/d" * 1_000)
    driver.write("/a/b" + "/d" * 1_500 + "/f")
    assert (driver.state.file_count, driver.state.directory_count) == (1, 1_502)


def test_what_is_removed_from_one_path_for_ever_costs_no_more_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A job that makes its output anew each minute leaves thousands of one path in the trash."""
    sorts: list[int] = []
    by_time = trash._by_time
    monkeypatch.setattr(trash, "_by_time", lambda *args: sorts.append(1) or by_time(*args))
    state = Driver().state
    for now_ms in (*range(100), 50):
        for command in (
            commands.CreateEmptyFile(now_ms, "/f", False, 1),
            commands.Remove(now_ms, "/f", False, 1_000),
        ):
            state, reply = transition(state, command)
            assert not isinstance(reply, commands.Refused)
    assert len(sorts) == 1  # when the clock went back
    assert state.trash_by_path == trash.by_path(state.trash)
