"""The real client and real processes against a model in memory, while disks and servers fail.

Whatever is read is what the model says, or a clear error while no server that is up has the bytes.
What is written, renamed, cloned or removed succeeds or is refused as in the model, as long as one
chunkserver works. After the faults have ended, ``fsck`` finds nothing that stays.
"""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from minigfs.client.appender import Appender
from minigfs.client.checking import ReplicaChecker
from minigfs.client.transaction import Transaction
from minigfs.config import CHECKSUM_BLOCK_BYTES as BLOCK
from minigfs.errors import ClusterError, DamageError, FileMissing, MinigfsError
from minigfs.master.messages import EntryKind
from tests.cluster_faults import DAMAGE, ClusterFaults
from tests.minigfs.master.tree_model import TreeModel
from tests.storage_cluster import StorageCluster

pytestmark = pytest.mark.e2e

CHUNK = 2 * BLOCK
SERVERS = 3
RETENTION_MS = 3 * 86_400_000
HEAL_SECONDS_MAX = 60.0
DIRECTORIES = ("/d", "/e", "/d/e")
PATHS = ("/a", "/b", "/d/a", "/d/b", "/e/a", "/d/e/a")
SIZES = (0, 1, 1_000, BLOCK, CHUNK, CHUNK + 1, 2 * CHUNK + 17)

files = st.sampled_from(PATHS)
places = st.sampled_from((*PATHS, *DIRECTORIES))
picks = st.integers(0, 1000)
servers = st.integers(0, SERVERS - 1)
sizes = st.sampled_from(SIZES)

_worlds = itertools.count()


class Content:
    """A file of the model, wherever it is moved; so an appender knows its own."""

    def __init__(self, data: bytes) -> None:
        self.data = data


class FileModel(TreeModel):
    def copy_of(self, top: str) -> tuple[dict[str, object | None], dict[str, int]]:
        entries, policies = super().copy_of(top)
        for path, content in entries.items():
            if isinstance(content, Content):
                entries[path] = Content(content.data)
        return entries, policies

    def content(self, path: str) -> Content:
        content = self.entries[path]
        assert isinstance(content, Content)
        return content

    def file(self, path: str) -> Content:
        """As an operation on its bytes sees it."""
        self.check_publish(path, exclusive=False)
        if path not in self.entries:
            raise FileMissing(path)
        return self.content(path)

    def file_paths(self) -> list[str]:
        return [path for path in self.entries if self.is_file(path)]


class FileWorld(RuleBasedStateMachine):
    def __init__(self, cluster: StorageCluster) -> None:
        super().__init__()
        self.cluster = cluster
        self.client = cluster.client
        self.faults = ClusterFaults(cluster)
        self.model = FileModel()
        self.root = f"/world-{next(_worlds)}"
        self.random = Random(self.root)
        self.steps = 0
        self.appender: tuple[Appender, Content] | None = None
        self.client.make_directory(self.root)

    @initialize(lengths=st.lists(st.sampled_from(SIZES[1:]), min_size=3, max_size=3))
    def begin_with_files(self, lengths: list[int]) -> None:
        for path, size in zip(("/a", "/d/b", "/d/e/a"), lengths, strict=True):
            self.write(path, size, False)

    # What is done, and held against the model.

    def run(self, call: Callable[[], object], change: Callable[[], object], path: str = "") -> None:
        """``path``: of the file whose bytes must be read for it."""
        self.steps += 1
        try:
            call()
        except (ClusterError, DamageError) as error:
            self.check_excused(path, error)
            return
        except MinigfsError as refusal:
            code: str | None = refusal.code
        else:
            code = None
        assert code == self.model.outcome(change)

    def check_excused(self, path: str, error: MinigfsError) -> None:
        """Bytes may be out of reach if no server that is up has them."""
        assert path, f"needs no bytes that are stored: {error}"
        chunks = self.client.locations(self.root + path).chunks
        out_of_reach = [one for one in chunks if not self.faults.can_be_read(one)]
        assert out_of_reach, f"all chunks of {path} are there: {type(error).__name__}: {error}"

    def pick(self, number: int, spare: str) -> str:
        known = sorted(self.model.entries)[1:] or [spare]
        return spare if number % 3 == 0 else known[number % len(known)]

    def new_bytes(self, length: int) -> bytes:
        return self.random.randbytes(length)

    @rule(path=files, size=sizes, exclusive=st.booleans())
    def write(self, path: str, size: int, exclusive: bool) -> None:
        data = self.new_bytes(size)

        def write() -> None:
            with self.client.open_writer(self.root + path, exclusive=exclusive) as writer:
                for start in range(0, size, 50_000):
                    writer.write(data[start : start + 50_000])

        self.run(write, lambda: self.model.publish(path, Content(data), exclusive=exclusive))

    @rule(path=files, size=sizes)
    def write_and_fail(self, path: str, size: int) -> None:
        with suppress(ZeroDivisionError, IsADirectoryError, NotADirectoryError):
            self.fail_after(path, size)

    def fail_after(self, path: str, size: int) -> None:
        with self.client.open_writer(self.root + path) as writer:
            writer.write(bytes(size))
            raise ZeroDivisionError

    @rule(path=files, length=st.sampled_from((1, 700, CHUNK // 4)))
    def append(self, path: str, length: int) -> None:
        data = self.new_bytes(length)

        def change() -> None:
            if path not in self.model.entries:
                self.model.publish(path, Content(b""), exclusive=False)
            self.model.file(path).data += data

        self.run(lambda: self.client.append(self.root + path, data), change)

    @rule(number=picks)
    def open_appender(self, number: int) -> None:
        self.close_appender()
        paths = self.model.file_paths()
        if paths:
            path = paths[number % len(paths)]
            appender = self.client.open_appender(self.root + path)
            self.appender = appender, self.model.content(path)

    @rule(length=st.sampled_from((10, 5_000)))
    def append_with_open_appender(self, length: int) -> None:
        if self.appender is None:
            return
        appender, content = self.appender
        is_there = any(content is one for one in self.model.entries.values())
        data = self.new_bytes(length)
        try:
            appender.append(data)
        except FileMissing:
            assert not is_there
        else:
            content.data += data  # a removed file may take some more, which nobody sees

    @rule()
    def close_appender(self) -> None:
        if self.appender is not None:
            with suppress(FileMissing):
                self.appender[0].close()
            self.appender = None

    @rule(number=picks, spare=files, part=st.floats(0, 1.1), length=sizes,
          cut=st.none() | st.floats(0, 1.5))  # fmt: skip
    def update(self, number: int, spare: str, part: float, length: int, cut: float | None) -> None:
        path = self.pick(number, spare)
        data = self.new_bytes(length)
        old = self.model.entries.get(path)
        size = len(old.data) if isinstance(old, Content) else 0
        offset, limit = int(size * part), None if cut is None else int(size * cut)

        def call() -> None:
            with self.client.open_for_update(self.root + path) as file:
                file.write_at(offset, data)
                if limit is not None:
                    file.truncate(limit)

        def change() -> None:
            content = self.model.file(path)
            changed = bytearray(content.data)
            if data:
                changed = changed.ljust(offset, b"\0")
                changed[offset : offset + len(data)] = data
            if limit is not None:
                changed = changed[:limit].ljust(limit, b"\0")
            content.data = bytes(changed)

        self.run(call, change, path)

    @rule(path=places, parents=st.booleans(), exist_ok=st.booleans())
    def make_directory(self, path: str, parents: bool, exist_ok: bool) -> None:
        self.run(
            lambda: self.client.make_directory(
                self.root + path, parents=parents, exist_ok=exist_ok
            ),
            lambda: self.model.make_directory(path, parents=parents, exist_ok=exist_ok),
        )

    @rule(number=picks, spare=places, to=places, replace=st.booleans())
    def rename(self, number: int, spare: str, to: str, replace: bool) -> None:
        source = self.pick(number, spare)
        self.run(
            lambda: self.client.rename(self.root + source, self.root + to, replace=replace),
            lambda: self.model.rename(source, to, replace=replace),
        )

    @rule(number=picks, spare=places, to=places, replace=st.booleans())
    def clone(self, number: int, spare: str, to: str, replace: bool) -> None:
        source = self.pick(number, spare)
        self.run(
            lambda: self.client.clone(self.root + source, self.root + to, replace=replace),
            lambda: self.model.clone(source, to, replace=replace),
        )

    @rule(number=picks, spare=places, recursive=st.booleans(), now=st.booleans())
    def remove(self, number: int, spare: str, recursive: bool, now: bool) -> None:
        path = self.pick(number, spare)
        self.run(
            lambda: self.client.remove(self.root + path, recursive=recursive, now=now),
            lambda: self.model.remove(
                path,
                recursive=recursive,
                keep_ms=0 if now else RETENTION_MS,
                now_ms=self.steps,
            ),
        )

    @rule(number=picks, spare=places, to=places)
    def undelete(self, number: int, spare: str, to: str) -> None:
        removed = [one.path for one in self.model.trash] or [spare]
        path = removed[number % len(removed)]
        self.run(
            lambda: self.client.undelete(self.root + path, self.root + to),
            lambda: self.model.undelete(path, to),
        )

    @rule(kinds=st.lists(st.sampled_from(("write", "rename", "remove")), min_size=1, max_size=3),
          paths=st.lists(places, min_size=6, max_size=6, unique=True), size=sizes)  # fmt: skip
    def transact(self, kinds: list[str], paths: list[str], size: int) -> None:
        made: list[Callable[[], object]] = []

        def prepare(change: Transaction, kind: str, path: str, target: str) -> None:
            match kind:
                case "write":
                    data = self.new_bytes(size)
                    with change.open_writer(self.root + path) as writer:
                        writer.write(data)
                    made.append(lambda: self.model.publish(path, Content(data), exclusive=False))
                case "rename":
                    change.rename(self.root + path, self.root + target, replace=True)
                    made.append(lambda: self.model.rename(path, target, replace=True))
                case "remove":
                    change.remove(self.root + path, recursive=True, now=True)
                    made.append(lambda: self.model.remove(path, recursive=True))

        def call() -> None:
            with self.client.transaction() as change:
                for kind, path, target in zip(kinds, paths[:3], paths[3:], strict=False):
                    prepare(change, kind, path, target)

        def change() -> None:
            if len(made) < len(kinds):  # what cannot be written is refused when it is opened
                path = paths[len(made)]
                self.model.check_publish(path, exclusive=False)
                raise AssertionError(f"{path} should have been opened")
            for one in made:
                one()

        self.run(call, change)

    # What goes wrong.

    @rule(number=servers, how=st.sampled_from(("killed", "paused", "isolated")))
    def take_down(self, number: int, how: str) -> None:
        self.faults.take_down(number, how)

    @rule()
    def bring_back(self) -> None:
        self.faults.bring_back()

    @rule(number=servers)
    def fill_disk(self, number: int) -> None:
        self.faults.fill_disk(number)

    @rule()
    def free_disk(self) -> None:
        self.faults.free_disk()

    @rule(everything=st.booleans())
    def restart(self, everything: bool) -> None:
        if everything:
            self.faults.kill_everything()
        else:
            self.faults.restart_master()

    @rule(number=servers, back=st.booleans())
    def disk_of_yesterday(self, number: int, back: bool) -> None:
        if back:
            self.faults.put_back_disk(number)
        else:
            self.faults.save_disk(number)

    @rule(numbers=st.sets(servers, min_size=1, max_size=2), pick=picks,
          kind=st.sampled_from(sorted(DAMAGE)), look=st.booleans())  # fmt: skip
    def damage(self, numbers: set[int], pick: int, kind: str, look: bool) -> None:
        """Of every chunk of a file; of an open one, on one server."""
        paths = self.model.file_paths()
        if not paths:
            return
        path = paths[pick % len(paths)]
        for chunk in self.client.locations(self.root + path).chunks:
            if chunk.is_open:
                self.faults.damage_open(min(numbers), chunk, kind)
            for number in numbers if not chunk.is_open else ():
                self.faults.damage(number, chunk, kind)
        if look:
            self.check_content(path)

    @rule(pick=picks, kind=st.sampled_from(sorted(DAMAGE)))
    def damage_everywhere(self, pick: int, kind: str) -> None:
        """A chunk that nobody has right any more."""
        paths = self.model.file_paths()
        if paths:
            path = paths[pick % len(paths)]
            for chunk in self.client.locations(self.root + path).chunks[:1]:
                for number in range(SERVERS) if not chunk.is_open else ():
                    self.faults.damage(number, chunk, kind)
            self.check_content(path)

    # What is seen.

    @rule()
    def look(self) -> None:
        self.check_everything()

    def check_everything(self) -> list[str]:
        """Hold everything against the model; the files that are out of reach."""
        found = {
            status.path.removeprefix(self.root): status.kind is EntryKind.DIRECTORY
            for status in self.client.find(self.root)
        }
        expected = {path: self.model.is_dir(path) for path in self.model.entries if path != "/"}
        assert found == expected
        return [path for path in self.model.file_paths() if not self.check_content(path)]

    def check_content(self, path: str) -> bool:
        """Whether the file can be read; then it is as it should be."""
        try:
            with self.client.open_reader(self.root + path) as reader:
                data = reader.read_at(0, reader.size_bytes)
        except (ClusterError, DamageError) as error:
            self.check_excused(path, error)
            return False
        assert data == self.model.content(path).data, path
        return True

    def teardown(self) -> None:
        try:
            self.faults.heal()
            self.close_appender()
            for path in self.check_everything():
                self.client.remove(self.root + path, now=True)
            for entry in list(self.client.list_trash("/")):
                self.client.remove(entry.trash_path, recursive=True, now=True)
            self.check_healed()
        finally:
            self.faults.heal()
            self.client.remove(self.root, recursive=True, now=True)

    def check_healed(self) -> None:
        with ReplicaChecker(self.cluster.config) as checker:
            found = [one for checked in checker.check("/") for one in checked.findings]
            for finding in found:
                if finding.is_damage:
                    checker.report(finding)
            assert checker.await_repair(found, timeout_ms=int(HEAL_SECONDS_MAX * 1000)) == []
            deadline = time.monotonic() + HEAL_SECONDS_MAX
            while (report := self.client.report()).health != "OK":
                assert time.monotonic() < deadline, report.reasons
                time.sleep(0.1)  # only asking tells
            assert [one for checked in checker.check("/") for one in checked.findings] == []


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageCluster]:
    root = tmp_path_factory.mktemp("model")
    with StorageCluster(root, chunk_bytes=CHUNK, chunkservers=SERVERS, links=True) as started:
        yield started


def explore(cluster: StorageCluster, *, examples: int, steps: int, derandomize: bool) -> None:
    run_state_machine_as_test(
        lambda: FileWorld(cluster),
        _min_steps=steps,  # else most examples end after a few
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=derandomize,
            database=None,
            phases=(Phase.generate,),  # a failure takes too long to shrink
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_few_faults(cluster: StorageCluster) -> None:
    explore(cluster, examples=3, steps=40, derandomize=True)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_many_faults(cluster: StorageCluster) -> None:
    explore(
        cluster,
        examples=int(os.environ.get("MODEL_EXAMPLES", "25")),
        steps=40,
        derandomize=False,
    )
