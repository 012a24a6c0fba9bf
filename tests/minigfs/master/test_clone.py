"""However large a tree, one entry of the log copies a bounded part of it, and readers see all of
the clone or nothing."""

from collections.abc import Callable

import pytest

from minigfs.errors import FileMissing
from minigfs.master import commands
from minigfs.master.clone import CLONE_WORK_MAX, SMALL_CHUNKS_MAX
from minigfs.master.listing import find_page
from minigfs.master.name_table import BLOCK_NAMES_MAX
from minigfs.master.namespace import get_inode, split_path
from minigfs.master.snapshot import freeze_state, restore_state
from minigfs.master.state import FileInode, FileSystemState
from minigfs.master.transition import transition
from tests.minigfs.master.harness import CHUNK_BYTES, Driver, check_invariants

STEP_MAX = CLONE_WORK_MAX + BLOCK_NAMES_MAX * (1 + SMALL_CHUNKS_MAX)  # a block is copied whole


class Tree(Driver):
    """Checks invariants when asked, not after each of thousands of commands."""

    def apply(self, command: commands.Command) -> commands.CommandReply:
        self.log.append(command)
        self.state, reply = transition(self.state, command)
        return reply


def work_between(before: FileSystemState, after: FileSystemState) -> int:
    """Inodes made and owners counted."""
    owners = sum(after.shared.values()) - sum(before.shared.values())
    return len(after.inodes) - len(before.inodes) + owners


def finish(tree: Tree, copy_id: int, between: Callable[[], None] = lambda: None) -> int:
    """Take the steps of a clone, each within its bound; how many it took."""
    step_count = 0
    while tree.state.cloning[copy_id].waiting:
        between()
        before = tree.state
        assert tree.apply(commands.CloneStep(10)) == commands.Done()
        assert work_between(before, tree.state) <= STEP_MAX
        step_count += 1
    check_invariants(tree.state)
    return step_count


def paths_below(state: FileSystemState, path: str) -> list[tuple[str, int]]:
    """All of them, with the sizes of files."""
    found: list[tuple[str, int]] = []
    more, after = True, ""
    while more:
        page = find_page(state, path, after, 4_000)
        found += [(entry.path.removeprefix(path), entry.size_bytes) for entry in page.entries]
        more, after = page.more, page.entries[-1].path if page.entries else ""
    return found


@pytest.fixture
def tree() -> Tree:
    tree = Tree()
    for number in range(3_000):
        tree.write(f"/t/{number % 3}/{number}", 100 if number % 2 else 0)
    for number in range(1_500):
        tree.make_directory(f"/t/wide/{number}/below")
    tree.make_directory("/t" + "/deep" * 300)
    return tree


def test_a_large_tree_appears_at_once_after_bounded_steps(tree: Tree) -> None:
    expected = paths_below(tree.state, "/t")
    before = tree.state
    reply = tree.apply(commands.Clone(9, "/t", "/copy", False))
    assert isinstance(reply, commands.CloneBegun)
    assert not reply.is_done
    assert 0 < work_between(before, tree.state) <= STEP_MAX
    check_invariants(tree.state)

    def nothing_is_to_be_seen() -> None:
        with pytest.raises(FileMissing):
            get_inode(tree.state, split_path("/copy"))
        assert tree.state.file_count == 3_000

    assert finish(tree, reply.copy_id, nothing_is_to_be_seen) >= 6_000 // STEP_MAX
    assert paths_below(tree.state, "/copy") == expected == paths_below(tree.state, "/t")
    assert tree.state.file_count == 6_000


def test_the_source_is_busy_until_then_and_all_else_is_not(tree: Tree) -> None:
    tree.make_directory("/other/place")
    writing = tree.open_file("/t/0/new")
    reply = tree.apply(commands.Clone(9, "/t", "/copy", False))
    assert isinstance(reply, commands.CloneBegun)
    for command in (
        commands.MakeDirectory(9, "/t/new", False, False),
        commands.Rename(9, "/t/0/0", "/other/0", False),
        commands.Rename(9, "/other/place", "/t/place", False),
        commands.Rename(9, "/t", "/moved", False),
        commands.Remove(9, "/t/1/1", False),
        commands.Remove(9, "/t", True, 99),
        tree.publish_command(writing, "/t/0/new"),
        commands.SetPolicy(9, "/t/0", 1, None),
        commands.SetReplication(9, ("/t/0/0",), 2),
    ):
        assert tree.refused(command) == "busy", command
    for other in (
        commands.MakeDirectory(9, "/other/new", False, False),
        tree.publish_command(writing, "/other/written"),
        commands.Rename(9, "/other", "/another", False),
    ):
        assert not isinstance(tree.apply(other), commands.Refused), other
    finish(tree, reply.copy_id)
    assert tree.apply(commands.Rename(9, "/t", "/moved", False)) == commands.Done()


def test_what_stands_above_the_source_may_be_removed_meanwhile(tree: Tree) -> None:
    tree.make_directory("/top")
    tree.apply(commands.Rename(9, "/t", "/top/t", False))
    expected = paths_below(tree.state, "/top/t")
    reply = tree.apply(commands.Clone(9, "/top/t", "/copy", False))
    assert isinstance(reply, commands.CloneBegun)
    tree.apply(commands.Remove(9, "/top", True))
    finish(tree, reply.copy_id, lambda: tree.apply(commands.Reap(9)) and None)
    assert paths_below(tree.state, "/copy") == expected
    while tree.state.condemned:
        tree.apply(commands.Reap(9))
    check_invariants(tree.state)
    assert not tree.state.shared
    assert len(tree.state.chunks) == 1_500


def test_the_chunks_of_a_large_file_are_counted_in_bounded_steps() -> None:
    tree, count = Tree(), 3 * CLONE_WORK_MAX
    tree.write("/f", count * CHUNK_BYTES)
    reply = tree.apply(commands.Clone(9, "/f", "/g", False))
    assert isinstance(reply, commands.CloneBegun)
    assert finish(tree, reply.copy_id) == 2
    inodes = [get_inode(tree.state, (name,)) for name in "fg"]
    assert all(isinstance(inode, FileInode) for inode in inodes)
    assert inodes[0].chunks == inodes[1].chunks
    tree.apply(commands.Remove(9, "/f", False))
    while tree.state.condemned:
        tree.apply(commands.Reap(9))
    assert (len(tree.state.chunks), len(tree.state.garbage)) == (count, 0)
    tree.apply(commands.Remove(9, "/g", False))
    while tree.state.condemned:
        tree.apply(commands.Reap(9))
    assert (len(tree.state.chunks), len(tree.state.garbage)) == (0, count)


def test_a_clone_whose_place_was_taken_meanwhile_says_so_and_leaves_nothing(tree: Tree) -> None:
    before = len(tree.state.inodes)
    reply = tree.apply(commands.Clone(9, "/t", "/copy", False))
    assert isinstance(reply, commands.CloneBegun)
    tree.make_directory("/copy")
    finish(tree, reply.copy_id)
    assert tree.state.cloning[reply.copy_id].refused_code == "file-exists"
    while tree.state.condemned:
        tree.apply(commands.Reap(9))
    assert len(tree.state.inodes) == before + 1
    assert not tree.state.shared


def test_another_master_goes_on_with_a_clone_from_a_snapshot(tree: Tree) -> None:
    reply = tree.apply(commands.Clone(9, "/t", "/copy", False))
    assert isinstance(reply, commands.CloneBegun)
    for _ in range(4):
        tree.apply(commands.CloneStep(9))
        other = Tree()
        other.state = restore_state(freeze_state(tree.state))
        assert other.state == tree.state
        finish(other, reply.copy_id)
        assert paths_below(other.state, "/copy") == paths_below(other.state, "/t")


def test_how_a_clone_ended_is_remembered_for_an_hour(tree: Tree) -> None:
    reply = tree.apply(commands.Clone(9, "/t", "/copy", False))
    assert isinstance(reply, commands.CloneBegun)
    finish(tree, reply.copy_id)
    tree.apply(commands.Clone(3_600_000, "/t/wide/1", "/one", False))
    assert reply.copy_id in tree.state.cloning
    tree.apply(commands.Clone(3_600_010, "/t/wide/1", "/two", False))
    assert reply.copy_id not in tree.state.cloning
