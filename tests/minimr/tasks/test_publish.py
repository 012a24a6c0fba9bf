"""Publishing: all or nothing, once, and again after a crash at any point."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from minimr import agg
from minimr.formats.storage import Storage
from minimr.ids import JobId
from minimr.job import Job
from minimr.messages import FailureKind, Part
from minimr.tasks.attempt import AttemptFailed
from tests.minimr.tasks.harness import Bench, splits_of

JOB = Job("p", map=lambda line: [(line, 1)], reduce=agg.sum)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "in").write_bytes(b"a\nb\nc\nd\n")
    return Bench(
        job=JOB, splits=splits_of([tmp_path / "in"], 4), directory=tmp_path, partition_count=2
    )


@pytest.fixture
def parts(bench: Bench) -> list[Part]:
    return bench.parts()


def names(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


WHOLE = ["_manifest.json", "part-r-00000", "part-r-00001"]


def test_nothing_is_visible_before_and_everything_after(bench: Bench, parts: list[Part]) -> None:
    assert not bench.output.exists()
    bench.publish(parts)
    assert names(bench.output) == WHOLE
    assert not bench.staging.exists()


def test_attempts_that_were_not_committed_never_show_up(bench: Bench, parts: list[Part]) -> None:
    (bench.attempts / "r-00000.9-9").write_bytes(b"late")
    bench.staging.mkdir()
    (bench.staging / "stray").write_bytes(b"late")
    bench.publish(parts)
    assert names(bench.output) == WHOLE


def test_an_output_that_appeared_meanwhile_is_not_touched(bench: Bench, parts: list[Part]) -> None:
    bench.output.mkdir()
    (bench.output / "mine").touch()
    with pytest.raises(AttemptFailed) as caught:
        bench.publish(parts)
    assert caught.value.failure.kind is FailureKind.OUTPUT
    assert "--overwrite" in caught.value.failure.error
    assert names(bench.output) == ["mine"]


def test_overwriting_exchanges_the_whole_directory(bench: Bench, parts: list[Part]) -> None:
    bench.output.mkdir()
    (bench.output / "part-r-00007").write_bytes(b"old")
    bench.overwrite = True
    bench.publish(parts)
    assert names(bench.output) == WHOLE
    assert not bench.staging.exists()


def test_publishing_again_is_success_and_changes_nothing(bench: Bench, parts: list[Part]) -> None:
    bench.publish(parts)
    before = {each.name: each.read_bytes() for each in bench.output.iterdir()}
    bench.publish(parts)
    assert {each.name: each.read_bytes() for each in bench.output.iterdir()} == before


def test_after_a_crash_between_exchange_and_removal_the_new_output_stays(
    bench: Bench, parts: list[Part]
) -> None:
    bench.publish(parts)
    bench.staging.mkdir()
    (bench.staging / "part-r-00000").write_bytes(b"the output that was overwritten")
    bench.overwrite = True
    bench.publish(parts)
    assert names(bench.output) == WHOLE
    assert not bench.staging.exists()


@pytest.mark.parametrize("renamed_count", [0, 1, 2])
def test_a_crash_while_parts_got_their_names_is_taken_up(
    bench: Bench, parts: list[Part], renamed_count: int
) -> None:
    bench.staging.mkdir()
    for part in parts[:renamed_count]:
        (bench.attempts / part.attempt_name).rename(bench.staging / part.name)
    (bench.staging / "_manifest.json").write_bytes(b"{")
    bench.publish(parts)
    assert names(bench.output) == WHOLE
    assert json.loads((bench.output / "_manifest.json").read_bytes())["job_id"] == bench.job_id


class StorageOfOneWhoDies(Storage):
    """Its process ends when it is about to write the manifest."""

    def write_bytes(self, url: str, content: bytes, *, parents: bool = True) -> None:
        raise OSError(f"died before it wrote {url}")


def test_a_late_attempt_leaves_the_manifest_of_the_one_that_took_over(
    bench: Bench, parts: list[Part]
) -> None:
    """The master may publish at any moment from then on (found by reading; a zombie's window)."""
    bench.staging.mkdir()
    for part in parts:
        (bench.attempts / part.attempt_name).rename(bench.staging / part.name)
    (bench.staging / "_manifest.json").write_bytes(b"{}")
    bench.storage = StorageOfOneWhoDies()
    with pytest.raises(AttemptFailed, match="died"):
        bench.publish(parts)
    assert (bench.staging / "_manifest.json").read_bytes() == b"{}"


class StorageOfOneWhoIsLate(Storage):
    """Its process stands still at the ``turn``-th change that it makes, and another attempt does
    ``meanwhile``."""

    turn: ClassVar[int]
    meanwhile: ClassVar[Callable[[], None]]
    changes: ClassVar[int]

    def _note(self) -> None:
        cls = type(self)
        cls.changes += 1
        if cls.changes == cls.turn:
            cls.meanwhile()

    def make_directories(self, url: str) -> None:
        self._note()
        super().make_directories(url)

    def rename(self, source: str, target: str) -> None:
        self._note()
        super().rename(source, target)

    def write_bytes(self, url: str, content: bytes, **options: bool) -> None:
        self._note()
        super().write_bytes(url, content, **options)

    def publish_directory(self, staging: str, output: str, **options: Any) -> None:
        self._note()
        super().publish_directory(staging, output, **options)

    def remove(self, url: str) -> None:
        self._note()
        super().remove(url)


@pytest.mark.parametrize("turn", range(1, 10))
@pytest.mark.parametrize("stops", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_late_attempt_never_harms_what_its_successor_published(
    bench: Bench,
    parts: list[Part],
    monkeypatch: pytest.MonkeyPatch,
    turn: int,
    stops: bool,
    overwrite: bool,
) -> None:
    """A worker that stood still for longer than its pings may, when another has its task."""
    bench.overwrite = overwrite
    if overwrite:
        bench.output.mkdir()
        for name in WHOLE:
            (bench.output / name).write_bytes(b"old")

    def stop(path: Path) -> None:
        raise OSError(f"stopped before it removed {path}")

    def successor() -> None:
        bench.storage = Storage()
        with monkeypatch.context() as patched, suppress(AttemptFailed):
            if stops and overwrite:
                patched.setattr("minimr.formats.storage._remove_local", stop)
            bench.publish(parts)

    class Late(StorageOfOneWhoIsLate):
        meanwhile = successor
        changes = 0

    Late.turn = turn
    bench.storage = Late()
    with suppress(AttemptFailed):
        bench.publish(parts)
    bench.storage = Storage()
    bench.publish(parts)  # what a third one finds
    assert names(bench.output) == WHOLE
    assert b"old" not in [(bench.output / name).read_bytes() for name in WHOLE]
    assert names(bench.directory) == ["in", "out", "scratch"]


def test_a_part_that_is_gone_is_an_error_and_nothing_appears(
    bench: Bench, parts: list[Part]
) -> None:
    (bench.attempts / parts[1].attempt_name).unlink()
    with pytest.raises(AttemptFailed, match="part-r-00001"):
        bench.publish(parts)
    assert not bench.output.exists()


def test_another_jobs_output_is_not_mistaken_for_ours(bench: Bench, parts: list[Part]) -> None:
    shutil.copytree(bench.attempts, bench.directory / "_minimr-other-00000002-attempts")
    other = Bench(
        job=JOB,
        splits=bench.splits,
        directory=bench.directory,
        partition_count=2,
        job_id=JobId("other-00000002"),
    )
    other.publish(parts)
    with pytest.raises(AttemptFailed, match="--overwrite"):
        bench.publish(parts)


def test_the_master_publishes_what_is_its_own_to_publish(bench: Bench, parts: list[Part]) -> None:
    """With ``published_by_master`` the task stops at a complete staging directory."""
    import msgspec

    from minimr.ids import TaskPhase, WorkerId
    from minimr.messages import PublishAssignment
    from minimr.shuffle.fetch import SegmentFetcher
    from minimr.tasks.attempt import AttemptContext, run_attempt

    run_attempt(
        AttemptContext(
            job=JOB,
            spec=msgspec.structs.replace(bench.spec, published_by_master=True),
            assignment=PublishAssignment(
                attempt=bench.attempt_id(TaskPhase.PUBLISH, 0), parts=tuple(parts), counters={}
            ),
            scratch=bench.scratch,
            worker_id=WorkerId("w"),
            address="",
            host="here",
            fetcher=SegmentFetcher("here"),
            report_progress=lambda done, total: None,
            is_cancelled=lambda: False,
        )
    )
    assert names(bench.staging) == WHOLE
    assert not bench.output.exists()


def test_an_attempt_that_writes_after_the_publication_adds_nothing_to_the_output(
    bench: Bench, parts: list[Part]
) -> None:
    late = (bench.attempts / "r-00000.1-99").open("wb")
    bench.publish(parts)
    with late:
        late.write(b"late")
    bench.parts()  # whole late attempts, which open their files only now
    assert names(bench.output) == WHOLE
