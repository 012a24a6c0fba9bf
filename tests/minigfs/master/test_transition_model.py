"""Random command sequences against an independent model, their replay from the log, and snapshots
on the way."""

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from minigfs.errors import PreconditionFailed, WriterFenced
from minigfs.ids import ChunkHandle, FileId
from minigfs.master import clone, commands, name_table, removal, snapshot
from minigfs.master.commands import decode_command, encode_command
from minigfs.master.listing import find_page, list_page
from minigfs.master.namespace import get_inode, path_of, split_path
from minigfs.master.snapshot import freeze_state, restore_state
from minigfs.master.state import FileInode, initial_state
from minigfs.master.transition import transition
from tests.minigfs.master.harness import SERVERS, Driver
from tests.minigfs.master.tree_model import TreeModel


@pytest.fixture(scope="module", autouse=True)
def _small_limits() -> Iterator[None]:
    """So that most removals leave something to be reaped, and clones take several steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(name_table, "BLOCK_NAMES_MAX", 2)
        patch.setattr(snapshot, "ROWS_PER_RECORD", 2)
        patch.setattr(removal, "REAP_WORK_MAX", 2)
        patch.setattr(clone, "CLONE_WORK_MAX", 3)
        patch.setattr(clone, "SMALL_CHUNKS_MAX", 1)
        yield


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
        self.now_ms = 0
        self.tokens: dict[str, int] = {}
        self.clones: dict[int, tuple] = {}  # under way: what each will put in its place

    @initialize(count=st.integers(0, 6))
    def begin_with_a_tree(self, count) -> None:
        for path in ("/a/a", "/a/a-/a", "/a/a-/a-", "/a-/a", "/é", "/a/a/é")[:count]:
            self.write(0, path, False, 2500)

    def tick(self) -> int:
        self.now_ms += 1
        return self.now_ms

    def run(self, command, change) -> commands.CommandReply:
        reply = self.driver.apply(command)
        code = reply.code if isinstance(reply, commands.Refused) else None
        if code == "busy":
            assert self.clones, (command, reply)
        else:
            assert code == self.model.outcome(change), (command, reply)
        return reply

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
        command = self.publish_command(file_id, path, size, exclusive=exclusive)
        self.run(
            command,
            lambda: self.model.publish(path, (command.now_ms, size), exclusive=exclusive),
        )

    def publish_command(self, file_id, path, size, *, exclusive) -> commands.PublishFile:
        """When a file was published tells it from others, but not from its clones."""
        command = self.driver.publish_command(file_id, path, size, exclusive=exclusive)
        return msgspec.structs.replace(command, now_ms=self.tick())

    @rule(target=files, path=paths, exclusive=st.booleans(), count=st.integers(0, 2),
          at_once=st.booleans())  # fmt: skip
    def create(self, path, exclusive, count, at_once):
        replica_sets = (SERVERS,) * count if at_once else ()
        command = commands.CreateFile(2, path, exclusive, 3, replica_sets)
        file_id = self.driver.state.next_file_id
        self.run(command, lambda: self.model.check_publish(path, exclusive=exclusive))
        if file_id not in self.driver.state.temporary:
            return multiple()
        if count and not at_once:
            self.driver.allocate(file_id, 0, count)
        assert len(self.driver.state.temporary[file_id].chunks) == count
        return file_id

    @rule(target=files)
    def create_spares(self):
        reply = self.driver.apply(commands.CreateSpareFiles(2, 3, (SERVERS, SERVERS)))
        assert isinstance(reply, commands.SpareFilesCreated)
        return multiple(*(file_id for file_id, _ in reply.files))

    @rule(path=paths, exclusive=st.booleans())
    def create_empty(self, path, exclusive) -> None:
        command = commands.CreateEmptyFile(self.tick(), path, exclusive, 3)
        self.run(
            command, lambda: self.model.publish(path, (command.now_ms, 0), exclusive=exclusive)
        )

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
        source, destination = self.two_paths(number, spare, other, destination)
        self.run(
            commands.Rename(5, source, destination, replace),
            lambda: self.model.rename(source, destination, replace=replace),
        )

    def two_paths(self, number, spare, other, destination) -> tuple[str, str]:
        source = self.pick(number, spare)
        if other % 3 == 0:
            destination = self.pick(other, destination)
        elif other % 3 == 1:
            destination = source + "/x"
        return source, destination

    @rule(number=picks, spare=paths, recursive=st.booleans(), keep_ms=st.sampled_from((0, 9, 99)))
    def remove(self, number, spare, recursive, keep_ms) -> None:
        path, now_ms = self.pick(number, spare), self.tick()
        self.run(
            commands.Remove(now_ms, path, recursive, keep_ms),
            lambda: self.model.remove(path, recursive=recursive, keep_ms=keep_ms, now_ms=now_ms),
        )

    # Files that grow, and change inside

    def inode_at(self, number) -> FileInode | None:
        """A file of the tree, or of the trash."""
        inodes = self.driver.state.inodes
        files = [inodes[i] for i in sorted(inodes) if isinstance(inodes[i], FileInode)]
        files = [one for one in files if path_of(self.driver.state, one) is not None]
        return files[number % len(files)] if files else None

    def changed(self, inode, now_ms) -> None:
        """The model's file is now what the inode says."""
        path = path_of(self.driver.state, inode)
        assert path is not None
        token = (now_ms, self.driver.state.inodes[inode.file_id].size_bytes)
        if not path.startswith("/.trash/"):
            self.model.entries[path] = token
            return
        name, _, below = path.removeprefix("/.trash/").partition("/")
        top = get_inode(self.driver.state, (".trash", name)).file_id
        removed_ms = self.driver.state.trash[top].removed_ms
        (removed,) = [one for one in self.model.trash if one.removed_ms == removed_ms]
        removed.entries["/" + below if below else ""] = token

    @rule(number=picks, length=st.none() | st.integers(0, 1024))
    def append(self, number, length) -> None:
        """A chunk is opened, if none is, and sealed, unless ``length`` is None."""
        inode = self.inode_at(number)
        if inode is None:
            return
        handle, now_ms = self.driver.state.open_files.get(inode.file_id), self.tick()
        if handle is None:
            after = inode.chunks[-1] if inode.chunks else ChunkHandle(0)
            command = commands.AppendChunk(now_ms, inode.file_id, after, SERVERS)
            reply = self.driver.apply(command)
            if isinstance(reply, commands.Refused):
                in_trash = path_of(self.driver.state, inode).startswith("/.trash/")
                assert reply.code == ("file-missing" if in_trash else "busy")
                return
            handle = reply.handle
        if length is None:
            return
        version = self.driver.state.chunks[handle].version
        seal = commands.SealChunk(
            now_ms, inode.file_id, handle, version, length, length, SERVERS[:1]
        )
        reply = self.driver.apply(seal)
        if isinstance(reply, commands.Refused):
            assert (reply.code, bool(self.clones)) == ("busy", True)
        elif length:
            self.changed(inode, now_ms)

    @rule(number=picks, kept=st.integers(0, 2))
    def truncate(self, number, kept) -> None:
        inode = self.inode_at(number)
        if inode is None or kept > len(inode.chunks):
            return
        command = commands.PatchFile(self.tick(), inode.file_id, None, len(inode.chunks), kept, ())
        reply = self.driver.apply(command)
        if isinstance(reply, commands.Refused):
            assert reply.code in ("busy", "writer-fenced", "file-missing")
        else:
            self.changed(inode, command.now_ms)

    # The trash

    @rule(number=picks, spare=paths, destination=st.one_of(st.none(), paths))
    def undelete(self, number, spare, destination) -> None:
        removed = sorted(
            {one.path + below for one in self.model.trash for below in one.entries} or {"/"}
        )
        path = spare if number % 4 == 0 else removed[number % len(removed)]
        target = path if destination is None else destination
        self.run(
            commands.Undelete(self.tick(), path, target), lambda: self.model.undelete(path, target)
        )

    @rule(later_ms=st.integers(-50, 50), count_max=st.integers(1, 3))
    def expire(self, later_ms, count_max) -> None:
        until_ms = self.now_ms + later_ms
        due = [one for one in self.model.trash if one.until_ms <= until_ms]
        steps = -(-len(due) // count_max)
        for _ in range(steps):
            reply = self.driver.apply(commands.ExpireTrash(self.tick(), until_ms, count_max))
            assert reply == commands.Done() or (self.clones and reply.code == "busy")
            if reply != commands.Done():
                return
        self.model.expire(until_ms)

    @rule(number=picks)
    def remove_for_good(self, number) -> None:
        """A second removal, of what lies in the trash, does not put it there again."""
        names = [page.path for page in list_page(self.driver.state, "/.trash", "", 100).entries]
        if not names:
            return
        path = names[number % len(names)]
        file_id = get_inode(self.driver.state, split_path(path)).file_id
        removed = self.driver.state.trash[file_id]
        reply = self.driver.apply(commands.Remove(self.tick(), path, True, 1000))
        if isinstance(reply, commands.Refused):
            assert reply.code == "busy"
            assert self.clones
            return
        assert file_id not in self.driver.state.trash
        gone = [one for one in self.model.trash if one.removed_ms == removed.removed_ms]
        assert [one.path for one in gone] == [removed.path]
        self.model.trash.remove(gone[0])

    @invariant()
    def the_trash_is_the_model_s(self) -> None:
        state = self.driver.state
        kept = [(one.path, one.removed_ms, one.until_ms) for one in self.model.trash]
        assert sorted((t.path, t.removed_ms, t.kept_until_ms) for t in state.trash.values()) == (
            sorted(kept)
        )
        found = find_page(state, "/.trash", "", 10_000).entries
        assert len(found) == sum(len(one.entries) for one in self.model.trash)
        for path in ("/.trash/x", "/.trash"):
            for command in (
                commands.MakeDirectory(1, path, True, False),
                commands.CreateFile(1, path, False, 1),
                commands.Rename(1, path, "/a/b/c/d", False),
                commands.Rename(1, "/", path, False),
            ):
                _, reply = transition(state, command)
                assert isinstance(reply, commands.Refused), command

    # Policies

    @rule(number=picks, spare=paths, retention_ms=st.sampled_from((-1, 0, 5, 500)))
    def set_policy(self, number, spare, retention_ms) -> None:
        path = self.pick(number, spare)
        self.run(
            commands.SetPolicy(self.tick(), path, None, retention_ms),
            lambda: self.model.set_policy(path, retention_ms),
        )

    @rule(number=picks, replication=st.integers(1, 4))
    def set_replication(self, number, replication) -> None:
        path = self.pick(number, "/a")
        reply = self.driver.apply(commands.SetReplication(self.tick(), (path,), replication))
        if isinstance(reply, commands.Refused):
            assert not self.model.is_file(path) or self.clones
            return
        state = self.driver.state
        inode = get_inode(state, split_path(path))
        assert isinstance(inode, FileInode)
        assert inode.replication == replication
        for other in state.inodes.values():
            for handle in other.chunks if isinstance(other, FileInode) else ():
                assert state.chunks[handle].replication >= other.replication
                if handle in inode.chunks and handle not in state.shared:
                    assert state.chunks[handle].replication == replication

    # Clones

    @rule(number=picks, spare=paths, other=picks, destination=paths, replace=st.booleans())
    def clone(self, number, spare, other, destination, replace) -> None:
        source, target = self.pick(number, spare), destination
        if other % 8 == 0:
            _, target = self.two_paths(number, spare, other // 8, destination)
        command = commands.Clone(self.tick(), source, target, replace)
        reply = self.driver.apply(command)
        if isinstance(reply, commands.CloneBegun) and not reply.is_done:
            self.clones[reply.copy_id] = (self.model.copy_of(source), target, replace)
        elif isinstance(reply, commands.Refused) and reply.code == "busy":
            assert self.clones  # its place is in what is being cloned
        else:
            code = reply.code if isinstance(reply, commands.Refused) else None
            change = lambda: self.model.clone(source, target, replace=replace)  # noqa: E731
            assert code == self.model.outcome(change), (command, reply)

    @rule()
    def clone_some(self) -> None:
        self.driver.apply(commands.CloneStep(self.tick()))
        for copy_id in list(self.clones):
            cloning = self.driver.state.cloning[copy_id]
            if cloning.waiting:
                continue
            (entries, policies), target, replace = self.clones.pop(copy_id)

            def place(entries=entries, policies=policies, target=target, replace=replace) -> None:
                is_dir = entries[""] is None
                self.model.check_clone_target(source_is_dir=is_dir, target=target, replace=replace)
                self.model.put(target, entries, policies)

            if cloning.refused_code != "busy":
                assert (cloning.refused_code or None) == self.model.outcome(place)

    # Transactions

    @rule(number=picks, spare=paths)
    def take_token(self, number, spare) -> None:
        path = self.pick(number, spare)
        reply = self.driver.apply(commands.TakeToken(self.tick(), path))
        assert isinstance(reply, commands.TokenTaken) == self.model.is_dir(path)
        if isinstance(reply, commands.TokenTaken):
            file_id = get_inode(self.driver.state, split_path(path)).file_id
            assert reply.token == self.tokens.get(file_id, 0) + 1
            self.tokens[file_id] = reply.token

    @rule(
        parts=st.lists(st.tuples(st.sampled_from("mrdpp"), picks, paths, paths), max_size=4),
        condition=st.none() | st.tuples(paths, st.sampled_from(("there", "missing", "same"))),
        behind=st.none() | st.tuples(picks, st.integers(0, 1)),
    )
    def transact(self, parts, condition, behind) -> None:
        """All of the parts, or none; judged part by part."""
        changes = [self.one_change(*part) for part in parts]
        conditions, holds = self.condition_of(condition)
        fence, is_fenced = self.fence_of(behind)

        def change() -> None:
            if is_fenced is not None:
                raise is_fenced
            if not holds:
                raise PreconditionFailed("no")
            for _, part in changes:
                part()

        command = commands.Transact(
            self.tick(), conditions, tuple(one for one, _ in changes), fence
        )
        published = [one for one, _ in changes if isinstance(one, commands.PublishFile)]
        reply = self.run(command, change)
        if isinstance(reply, commands.Refused):
            left = tuple(one.file_id for one in published)
            assert all(file_id in self.driver.state.temporary for file_id in left)
            self.driver.apply(commands.DiscardFiles(self.tick(), left))
        else:
            assert [one.path for one in reply.published] == [one.path for one in published]

    def one_change(self, kind, number, spare, other):
        path, now_ms = self.pick(number, spare), self.tick()
        match kind:
            case "m":
                return commands.MakeDirectory(
                    now_ms, path, True, True
                ), lambda: self.model.make_directory(path, parents=True, exist_ok=True)
            case "r":
                return commands.Rename(now_ms, path, other, True), lambda: self.model.rename(
                    path, other, replace=True
                )
            case "d":
                return commands.Remove(now_ms, path, True, 50), lambda: self.model.remove(
                    path, recursive=True, keep_ms=50, now_ms=now_ms
                )
        file_id = self.driver.open_file()
        self.driver.allocate(file_id, 0, 2)
        command = self.publish_command(file_id, other, 100, exclusive=number % 2 == 0)
        return command, lambda: self.model.publish(
            other, (command.now_ms, 100), exclusive=number % 2 == 0
        )

    def condition_of(self, condition):
        if condition is None:
            return (), True
        path, kind = condition
        there = path in self.model.entries
        if any(self.model.is_file(above) for above in self.model.ancestors(path)):
            return (), True  # the tree refuses such a path, whatever is asked about it
        if kind == "there":
            return (commands.Condition(path, None),), there
        if kind == "missing" or not there:
            return (commands.Condition(path, FileId(0)),), not there
        inode = get_inode(self.driver.state, split_path(path))
        size_bytes = inode.size_bytes if isinstance(inode, FileInode) else 0
        seen = commands.Condition(path, inode.file_id, inode.modified_ms, size_bytes)
        return (seen,), True

    def fence_of(self, behind):
        if behind is None or not self.model.is_dir(self.pick(behind[0], "/")):
            return None, None
        path, missed = self.pick(behind[0], "/"), behind[1]
        latest = self.tokens.get(get_inode(self.driver.state, split_path(path)).file_id, 0)
        return (path, latest - missed), WriterFenced("no") if missed else None

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
        page = find_page(self.driver.state, "/", "", 10_000)
        path = next((one.path for one in page.entries if one.file_id == inode.file_id), None)
        reply = self.driver.apply(commands.PublishFile(8, inode.file_id, "/a", (), False))
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
            found[entry.path] = (inode.modified_ms, inode.size_bytes) if is_file else None
        assert {"/": None, **found} == self.model.entries

    @invariant()
    def a_snapshot_is_the_state(self) -> None:
        records = list(freeze_state(self.driver.state))
        restored = restore_state(records)
        assert restored == self.driver.state
        assert list(freeze_state(restored)) == records

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
        while self.clones:
            self.clone_some()
        while self.driver.state.condemned:
            self.driver.apply(commands.Reap(9))
        self.trees_are_equal()


TestTree = TreeMachine.TestCase
TestTree.settings = settings(max_examples=100, stateful_step_count=50)
