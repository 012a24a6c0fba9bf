"""What each command does to the tree and the chunks, and what it refuses (GFS sections 2.6, 4)."""

import pytest
from xxhash import xxh3_64_hexdigest

from minigfs.master import commands
from minigfs.master.commands import SealedReplicas
from minigfs.master.namespace import find_inode, get_inode, split_path
from minigfs.master.state import DirectoryInode, FileInode


def inode_at(driver, path: str):
    return find_inode(driver.state, split_path(path))


def test_publishing_makes_missing_parents_and_records_size_and_digest(driver) -> None:
    file_id = driver.write("/a/b/c.txt", 2500)
    inode = inode_at(driver, "/a/b/c.txt")
    assert isinstance(inode, FileInode)
    assert (inode.file_id, inode.size_bytes, len(inode.chunks)) == (file_id, 2500, 3)
    digests = b"".join((h * 7).to_bytes(8, "little") for h in inode.chunks)
    assert inode.digest == xxh3_64_hexdigest(digests)
    assert [driver.state.chunks[h].replicas for h in inode.chunks] == [("s0", "s1")] * 3
    assert (driver.state.file_count, driver.state.directory_count) == (1, 2)


def test_nothing_is_visible_before_publish(driver) -> None:
    driver.allocate(driver.open_file("/a/b"), 0, 1)
    assert inode_at(driver, "/a") is None


def test_publishing_over_a_file_replaces_it_and_turns_its_chunks_into_garbage(driver) -> None:
    driver.write("/f", 2000)
    old = inode_at(driver, "/f").chunks
    file_id = driver.write("/f", 10)
    assert inode_at(driver, "/f").file_id == file_id
    assert sorted(driver.state.garbage) == sorted(old)
    assert driver.state.file_count == 1


def test_publishing_again_answers_with_the_status_and_changes_nothing(driver) -> None:
    file_id = driver.open_file("/f")
    driver.allocate(file_id, 0, 1)
    command = driver.publish_command(file_id, "/f", 10, exclusive=True)
    first = driver.apply(command)
    before = driver.state
    assert driver.apply(command) == first
    assert driver.state is before


def test_publish_is_refused_below_a_file_onto_a_directory_and_if_exclusive_onto_a_file(
    driver,
) -> None:
    driver.write("/f")
    driver.make_directory("/d")
    file_id = driver.open_file()
    publish = driver.publish_command
    assert driver.refused(publish(file_id, "/f/x/y")) == "not-directory"
    assert driver.refused(publish(file_id, "/d")) == "is-directory"
    assert driver.refused(publish(file_id, "/")) == "is-directory"
    assert driver.refused(publish(file_id, "/f", exclusive=True)) == "file-exists"
    assert file_id in driver.state.temporary, "a refusal leaves the writer its file"


def test_unused_chunks_are_garbage_after_publish(driver) -> None:
    file_id = driver.open_file()
    handles = driver.allocate(file_id, 0, 5)
    driver.apply(driver.publish_command(file_id, "/f", 1500))
    assert inode_at(driver, "/f").chunks == handles[:2]
    assert sorted(driver.state.garbage) == list(handles[2:])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"length_bytes": 1023}, "all chunks but the last"),
        ({"length_bytes": 1025}, "all chunks but the last"),
        ({"handle": 999}, "handle"),
        ({"replicas": ()}, "no chunkserver"),
        ({"replicas": ("s9",)}, "not given to"),
        ({"replicas": ("s0", "s0")}, "twice"),
        ({"digest": 2**64}, "64 bits"),
        ({"digest": -1}, "64 bits"),
    ],
)
def test_publish_refuses_chunks_that_cannot_be_the_files_contents(driver, change, what) -> None:
    file_id = driver.open_file()
    first, second = driver.allocate(file_id, 0, 2)
    fields = {"handle": first, "length_bytes": 1024, "digest": 1, "replicas": ("s0",)} | change
    sealed = (SealedReplicas(**fields), SealedReplicas(second, 1, 1, ("s0",)))
    reply = driver.apply(commands.PublishFile(8, file_id, "/f", sealed, False))
    assert isinstance(reply, commands.Refused)
    assert reply.code == "usage"
    assert what in reply.message


def test_publish_refuses_an_empty_last_chunk_and_more_chunks_than_were_allocated(driver) -> None:
    file_id = driver.open_file()
    (handle,) = driver.allocate(file_id, 0, 1)
    empty = (SealedReplicas(handle, 0, 1, ("s0",)),)
    assert driver.refused(commands.PublishFile(8, file_id, "/f", empty, False)) == "usage"
    full = SealedReplicas(handle, 1024, 1, ("s0",))
    extra = (full, SealedReplicas(handle + 1, 5, 1, ("s0",)))
    assert driver.refused(commands.PublishFile(8, file_id, "/f", extra, False)) == "usage"


def test_allocating_an_index_again_abandons_the_chunk_given_before(driver) -> None:
    file_id = driver.open_file()
    first = driver.allocate(file_id, 0, 3)
    (again,) = driver.allocate(file_id, 1, 1)
    assert driver.state.temporary[file_id].chunks == (first[0], again, first[2])
    assert dict(driver.state.garbage) == {first[1]: ("s0", "s1", "s2")}


def test_allocating_may_leave_no_hole_and_needs_an_open_file(driver) -> None:
    file_id = driver.open_file()
    assert driver.refused(commands.AllocateChunks(7, file_id, 1, (("s0",),))) == "usage"
    assert driver.refused(commands.AllocateChunks(7, file_id, -1, (("s0",),))) == "usage"
    assert driver.refused(commands.AllocateChunks(7, 999, 0, (("s0",),))) == "writer-fenced"


def test_discarding_turns_the_chunks_of_a_temporary_file_into_garbage(driver) -> None:
    file_id = driver.open_file()
    handles = driver.allocate(file_id, 0, 2)
    command = driver.publish_command(file_id, "/f")
    driver.apply(commands.DiscardFiles(9, (file_id, 12345)))
    assert sorted(driver.state.garbage) == list(handles)
    assert driver.refused(command) == "writer-fenced"


def test_discarding_a_published_file_is_no_error_and_changes_nothing(driver) -> None:
    file_id = driver.write("/f", 10)
    before = driver.state
    assert driver.apply(commands.DiscardFiles(9, (file_id,))) == commands.Done()
    assert driver.state == before


def test_a_writer_goes_on_while_its_path_is_renamed_and_removed(driver) -> None:
    driver.write("/d/f", 10)
    file_id = driver.open_file("/d/f")
    driver.allocate(file_id, 0, 1)
    driver.apply(commands.Rename(9, "/d", "/e", False))
    driver.apply(commands.Remove(9, "/e", True))
    reply = driver.apply(driver.publish_command(file_id, "/d/f", 20))
    assert isinstance(reply, commands.FilePublished)
    assert inode_at(driver, "/d/f").file_id == file_id


def test_renaming_a_directory_touches_what_is_above_it_and_nothing_below(driver) -> None:
    for i in range(50):
        driver.write(f"/a/b/f{i}")
    driver.make_directory("/t")
    before = driver.state.inodes
    assert driver.apply(commands.Rename(9, "/a/b", "/t/c", False)) == commands.Done()
    changed = [i for i, inode in driver.state.inodes.items() if before[i] is not inode]
    above = {get_inode(driver.state, parts).file_id for parts in ((), ("a",), ("t",))}
    assert set(changed) == {*above, get_inode(driver.state, ("t", "c")).file_id}
    assert isinstance(inode_at(driver, "/t/c/f49"), FileInode)
    assert inode_at(driver, "/a/b") is None


@pytest.mark.parametrize("target", ["/a/b", "/a/b/c/d", "/a/a"])
def test_a_directory_cannot_be_moved_into_itself(driver, target) -> None:
    driver.make_directory("/a/b/c")
    assert driver.refused(commands.Rename(9, "/a", target, True)) == "invalid-path"


def test_a_rename_onto_itself_changes_nothing(driver) -> None:
    driver.write("/d/f", 5)
    for path in ("/d", "/d/f"):
        before = driver.state
        assert driver.apply(commands.Rename(9, path, path, False)) == commands.Done()
        assert driver.state == before
    assert driver.refused(commands.Rename(9, "/no", "/no", False)) == "file-missing"


def test_rename_replaces_a_file_only_by_a_file_and_only_if_told_to(driver) -> None:
    driver.write("/f", 5)
    driver.write("/g", 6)
    driver.make_directory("/d")
    driver.make_directory("/e")
    old = inode_at(driver, "/g").chunks
    assert driver.refused(commands.Rename(9, "/f", "/g", False)) == "file-exists"
    assert driver.refused(commands.Rename(9, "/f", "/d", True)) == "is-directory"
    assert driver.refused(commands.Rename(9, "/d", "/g", True)) == "file-exists"
    assert driver.refused(commands.Rename(9, "/d", "/e", True)) == "file-exists"
    assert driver.apply(commands.Rename(9, "/f", "/g", True)) == commands.Done()
    assert inode_at(driver, "/g").size_bytes == 5
    assert inode_at(driver, "/f") is None
    assert tuple(driver.state.garbage) == old


def test_a_failing_mkdir_with_parents_makes_none_of_them(driver) -> None:
    driver.write("/a/f")
    before = driver.state
    assert driver.refused(commands.MakeDirectory(9, "/a/f/x/y", True, True)) == "not-directory"
    assert driver.refused(commands.MakeDirectory(9, "/n/m", False, True)) == "file-missing"
    assert driver.state is before


def test_removing_counts_what_is_gone_and_needs_recursive_for_a_full_directory(driver) -> None:
    driver.write("/a/f", 5)
    driver.write("/a/b/g", 2000)
    assert driver.refused(commands.Remove(9, "/a", False)) == "directory-not-empty"
    assert driver.apply(commands.Remove(9, "/a", True)) == commands.EntriesRemoved(2, 2)
    assert len(driver.state.garbage) == 3
    driver.make_directory("/empty")
    assert driver.apply(commands.Remove(9, "/empty", False)) == commands.EntriesRemoved(0, 1)
    assert driver.refused(commands.Remove(9, "/", True)) == "invalid-path"


def test_forgotten_garbage_is_gone_and_live_chunks_cannot_be_forgotten(driver) -> None:
    driver.write("/f", 10)
    (live,) = inode_at(driver, "/f").chunks
    dead = driver.allocate(driver.open_file(), 0, 1)
    driver.apply(commands.DiscardFiles(9, (driver.state.next_file_id - 1,)))
    driver.apply(commands.ForgetGarbage(9, (*dead, live, 999)))
    assert dict(driver.state.garbage) == {}
    assert live in driver.state.chunks


@pytest.mark.parametrize(
    "path",
    ["", "a", "a/b", "//", "/a/", "//a", "/a//b", "/.", "/a/..", "/a/./b", "/a\0b", "/\ud800"],
)
def test_a_malformed_path_is_invalid_in_every_command(driver, path) -> None:
    file_id = driver.open_file()
    sealed = ()
    for command in (
        commands.MakeDirectory(9, path, True, True),
        commands.CreateFile(9, path, False, 3),
        commands.PublishFile(9, file_id, path, sealed, False),
        commands.Rename(9, path, "/x", False),
        commands.Rename(9, "/x", path, False),
        commands.Remove(9, path, True),
    ):
        assert driver.refused(command) == "invalid-path"


def test_names_and_paths_have_the_limits_of_posix(driver) -> None:
    name = "é" * 127
    driver.make_directory(f"/{name}x")
    assert driver.refused(commands.MakeDirectory(9, f"/{name}xx", True, True)) == "invalid-path"
    deep = "/d" * 2048
    driver.make_directory(deep)
    assert driver.refused(commands.MakeDirectory(9, deep + "/d", True, True)) == "invalid-path"
    assert driver.apply(commands.Remove(9, "/d", True)) == commands.EntriesRemoved(0, 2048)


def test_odd_names_are_just_names(driver) -> None:
    for path in ("/ ", "/a\nb", "/...", "/*", "/-", "/\\", "/%2F"):
        driver.write(path)
        assert isinstance(inode_at(driver, path), FileInode)


def test_create_refuses_what_publish_would_refuse(driver) -> None:
    driver.write("/f")
    driver.make_directory("/d")
    assert driver.refused(commands.CreateFile(9, "/d", False, 3)) == "is-directory"
    assert driver.refused(commands.CreateFile(9, "/f/x", False, 3)) == "not-directory"
    assert driver.refused(commands.CreateFile(9, "/f", True, 3)) == "file-exists"
    assert driver.refused(commands.CreateFile(9, "/n", True, -1)) == "usage"


def test_an_empty_file_is_refused_what_any_file_is_refused(driver) -> None:
    driver.write("/f")
    driver.make_directory("/d")
    before = driver.state
    assert driver.refused(commands.CreateEmptyFile(9, "/d", False, 3)) == "is-directory"
    assert driver.refused(commands.CreateEmptyFile(9, "/f", True, 3)) == "file-exists"
    assert driver.state is before, "and leaves no temporary file behind"


def test_a_configured_file_system_keeps_its_configuration(driver) -> None:
    from msgspec.structs import replace

    other = replace(driver.state.config, chunk_bytes=4096)
    assert driver.refused(commands.Configure(9, other)) == "invalid-config"


def test_times_are_those_of_the_commands(driver) -> None:
    driver.write("/d/f")
    f = get_inode(driver.state, ("d", "f"))
    assert (f.created_ms, f.modified_ms) == (6, 8)
    driver.apply(commands.Rename(99, "/d/f", "/d/g", False))
    d = get_inode(driver.state, ("d",))
    assert isinstance(d, DirectoryInode)
    assert (d.created_ms, d.modified_ms) == (8, 99)
    assert get_inode(driver.state, ("d", "g")).modified_ms == 8
