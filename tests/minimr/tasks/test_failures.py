"""What a user is told when an attempt fails: the record, its place, and their own frames only."""

import gzip
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import IO, Any, cast

import msgspec
import pyarrow as pa
import pytest

from minimr.formats.storage import Storage
from minimr.job import Job
from minimr.messages import Failure, FailureKind
from minimr.tasks.attempt import AttemptFailed
from tests.minimr.tasks.harness import Bench, splits_of


def identity(line: bytes) -> list[tuple[bytes, int]]:
    return [(line, 1)]


def failure_of(act: Callable[[], object]) -> Failure:
    with pytest.raises(AttemptFailed) as caught:
        act()
    return caught.value.failure


def bench_of(tmp_path: Path, content: bytes, cut_bytes: int = 1 << 30, **job: Any) -> Bench:
    (tmp_path / "in").write_bytes(content)
    return Bench(
        job=Job("j", **({"reduce": lambda key, values: []} | job)),
        splits=splits_of([tmp_path / "in"], cut_bytes),
        directory=tmp_path,
    )


def check_nothing_left(bench: Bench) -> None:
    for directory in (bench.scratch, bench.attempts):
        assert [each for each in directory.rglob("*") if each.is_file()] == []


def fail_on_bad(line: bytes) -> list[tuple[bytes, int]]:
    return [(line, int(line))]


@pytest.mark.parametrize("cut_bytes", [1 << 30, 4, 9])
def test_a_raising_map_names_record_file_and_offset(tmp_path: Path, cut_bytes: int) -> None:
    bench = bench_of(tmp_path, b"12\n345\nbad\n6\n", cut_bytes, map=fail_on_bad)
    index = next(s.index for s in bench.splits if s.ranges[0].start + s.ranges[0].length > 7)
    failure = failure_of(lambda: bench.map(index))
    assert failure.kind is FailureKind.USER
    assert failure.record == "record b'bad'"
    assert failure.url == f"file://{tmp_path}/in"
    assert failure.offset == 7
    for words in ("map raised ValueError", "b'bad'", f"{tmp_path}/in at byte 7"):
        assert words in failure.error
    assert "fail_on_bad" in failure.traceback
    assert "ValueError" in failure.traceback
    assert "user_code.py" not in failure.traceback
    check_nothing_left(bench)


def test_the_offset_in_gzip_input_is_that_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "in.gz").write_bytes(gzip.compress(b"1\n" * 1_000_000 + b"bad\n"))
    bench = Bench(
        job=Job("j", map=fail_on_bad, reduce=lambda k, v: []),
        splits=splits_of([tmp_path / "in.gz"]),
        directory=tmp_path,
    )
    assert failure_of(lambda: bench.map(0)).offset == 2_000_000


def yields_nothing(_line: bytes) -> None:
    return None


def one_mixed(line: bytes) -> Iterator[tuple[Any, int]]:
    yield (line.decode() if line == b"bad" else line), 1


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (yields_nothing, ["map did not return", "NoneType"]),
        (lambda line: [line], ["map gave b'ok'", "pairs"]),
        (lambda line: (line, 1), ["map gave b'ok'", "pairs"]),
        (lambda line: [(line, 1, 2)], ["map gave (b'ok', 1, 2)"]),
        (lambda line: [(line, {})], ["dict"]),
        (one_mixed, ["bytes", "str", "b'bad'"]),
        (lambda line: [(line, 1 if line == b"ok" else 2**70)], ["does not fit", "b'bad'"]),
    ],
)
def test_what_a_map_must_not_return_is_said_with_the_record(
    tmp_path: Path, function: Any, words: list[str]
) -> None:
    bench = bench_of(tmp_path, b"ok\nok\nbad\nok\n", map=function)
    failure = failure_of(lambda: bench.map(0))
    assert failure.kind is FailureKind.USER
    assert all(word in failure.error for word in words), failure.error
    assert failure.offset == (6 if "b'bad'" in words else 0)


def test_a_map_that_calls_exit_fails_the_attempt_not_the_worker(tmp_path: Path) -> None:
    def leave(_line: bytes) -> Any:
        raise SystemExit(3)

    failure = failure_of(lambda: bench_of(tmp_path, b"a\n", map=leave).map(0))
    assert failure.kind is FailureKind.USER
    assert "SystemExit" in failure.error


def test_a_raising_batch_function_names_the_range_it_got(tmp_path: Path) -> None:
    def fail(_batch: pa.RecordBatch) -> pa.Table:
        raise KeyError("no such column")

    bench = bench_of(tmp_path, b"one\ntwo\nthree\n", 5, map_batches=fail)
    failure = failure_of(lambda: bench.map(1))
    assert failure.kind is FailureKind.USER
    assert (failure.url, failure.offset) == (f"file://{tmp_path}/in", 8)
    assert f"bytes 8 to 13 of file://{tmp_path}/in" in failure.error
    assert "no such column" in failure.traceback


@pytest.mark.parametrize(
    ("result", "word"),
    [
        ("text", "return Arrow tables"),
        (5, "not iterable"),
        (pa.table({"k": [1]}), "columns 'key' and 'value'"),
        (pa.table({"key": [None, 2], "value": [1, 2]}), "null"),
    ],
)
def test_what_a_batch_function_must_not_return_is_said(
    tmp_path: Path, result: Any, word: str
) -> None:
    failure = failure_of(lambda: bench_of(tmp_path, b"a\n", map_batches=lambda _: result).map(0))
    assert failure.kind is FailureKind.USER
    assert word in failure.error


def test_a_raising_reduce_names_its_key(tmp_path: Path) -> None:
    def fail(key: bytes, values: Iterator[int]) -> Iterator[tuple[bytes, int]]:
        yield key, 1 // (sum(values) - 1)

    bench = bench_of(tmp_path, b"b\na\na\n", map=identity, reduce=fail)
    output = bench.map(0).output
    assert output is not None
    failure = failure_of(lambda: bench.reduce(0, [output]))
    assert failure.kind is FailureKind.USER
    assert failure.record == "key b'b'"
    assert "ZeroDivisionError" in failure.error
    assert "fail" in failure.traceback
    assert [each for each in bench.attempts.rglob("*") if each.is_file()] == []


def test_a_combiner_that_changes_its_key_is_refused(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, b"a\n", map=identity, combine=lambda key, values: [(b"other", 1)])
    failure = failure_of(lambda: bench.map(0))
    assert failure.kind is FailureKind.USER
    assert "must keep its key" in failure.error


@pytest.mark.parametrize("partition", [-1, 7, "0", None])
def test_a_partition_out_of_range_names_the_key(tmp_path: Path, partition: Any) -> None:
    bench = bench_of(tmp_path, b"k\n", map=identity, partition=lambda key, count: partition)
    failure = failure_of(lambda: bench.map(0))
    assert failure.kind is FailureKind.USER
    assert f"partition returned {partition!r} for key b'k'" in failure.error


def test_input_that_is_gone_names_the_file(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, b"a\n", map=identity)
    (tmp_path / "in").unlink()
    failure = failure_of(lambda: bench.map(0))
    assert failure.kind is FailureKind.INPUT
    assert failure.url == f"file://{tmp_path}/in"
    assert "No such file" in failure.error


def test_damaged_gzip_is_an_input_failure(tmp_path: Path) -> None:
    (tmp_path / "in.gz").write_bytes(gzip.compress(b"1\n")[:-2])
    bench = Bench(
        job=Job("j", map=identity, reduce=lambda k, v: []),
        splits=splits_of([tmp_path / "in.gz"]),
        directory=tmp_path,
    )
    failure = failure_of(lambda: bench.map(0))
    assert failure.kind is FailureKind.INPUT
    assert "in.gz" in failure.error


def test_an_ambiguous_record_is_an_output_failure_unless_escaped(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, b"a\tb\n", map=identity, reduce=lambda k, v: [(k, sum(v))])
    output = bench.map(0).output
    assert output is not None
    failure = failure_of(lambda: bench.reduce(0, [output]))
    assert failure.kind is FailureKind.OUTPUT
    assert "escape=true" in failure.error
    bench.settings = (("escape", "true"),)
    bench.publish([bench.reduce(0, [output])])
    assert (bench.output / "part-r-00000").read_bytes() == b"a\\tb\t1\n"


def test_lost_map_outputs_are_named(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, b"a\nb\nc\n", 2, map=identity)
    outputs = [bench.map(index).output for index in range(3)]
    assert all(outputs)
    found = [output for output in outputs if output is not None]
    Path(found[1].path).unlink()
    failure = failure_of(lambda: bench.reduce(0, found))
    assert failure.kind is FailureKind.FETCH
    assert [lost.task.index for lost in failure.lost_outputs] == [1]


def test_maps_that_disagree_about_the_type_of_keys_fail_the_reduce(tmp_path: Path) -> None:
    def mixed(line: bytes) -> list[tuple[Any, int]]:
        return [(int(line) if line.isdigit() else line, 1)]

    bench = bench_of(tmp_path, b"1\na\n", 2, map=mixed)
    outputs = [bench.map(index).output for index in range(2)]
    found = [output for output in outputs if output is not None]
    failure = failure_of(lambda: bench.reduce(0, found))
    assert failure.kind is FailureKind.USER
    assert "int in 1 -> 1 and bytes in b'a' -> 1" in failure.error


def test_a_cancelled_attempt_stops_and_leaves_nothing(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, b"a\n", map=identity)
    bench.is_cancelled = lambda: True
    assert failure_of(lambda: bench.map(0)).kind is FailureKind.CANCELLED
    check_nothing_left(bench)


def test_the_cause_is_kept_for_a_debugger(tmp_path: Path) -> None:
    with pytest.raises(AttemptFailed) as caught:
        bench_of(tmp_path, b"bad\n", map=fail_on_bad).map(0)
    assert isinstance(caught.value.__cause__, ValueError)


class BrokenReader:
    cuts_files = False

    def read(self, file: IO[bytes], start: int, end: int) -> Iterator[bytes]:
        yield b"1"
        raise ValueError("my reader broke")


class BrokenWriter:
    suffix = ""

    def open(self, file: IO[bytes]) -> "BrokenWriter":
        return self

    def write(self, table: pa.RecordBatch) -> None:
        raise ValueError("my writer broke")

    def close(self) -> None:
        """Nothing to do."""


@pytest.mark.parametrize(
    ("formats", "said"),
    [
        (
            {"input_format": BrokenReader()},
            "input_format BrokenReader raised ValueError: my r",
        ),
        ({"output_format": BrokenWriter()}, "output_format BrokenWriter raised ValueError: my w"),
    ],
)
def test_a_format_of_the_users_that_raises_is_to_blame(
    tmp_path: Path, formats: dict[str, Any], said: str
) -> None:
    bench = bench_of(tmp_path, b"1\n", map=identity, reduce=None, **formats)
    bench.partition_count = 0
    failure = failure_of(lambda: bench.map(0))
    assert failure.kind is FailureKind.USER
    assert said in failure.error
    assert "broke" in failure.traceback
    assert "minimr/formats" not in failure.traceback
    check_nothing_left(bench)


class FileThatCannotBeClosed(FileIO):
    """As one on a file system that publishes on close."""

    def close(self) -> None:
        was_open = not self.closed
        super().close()
        if was_open:
            raise OSError("no quorum")


class StorageThatCannotClose(Storage):
    def open_output(self, url: str) -> IO[bytes]:
        with super().open_output(url) as file:
            return cast("IO[bytes]", FileThatCannotBeClosed(file.name, "wb"))


def test_a_part_that_cannot_be_closed_is_an_output_failure(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, b"1\n", map=identity, reduce=None)
    bench.partition_count = 0
    bench.storage = StorageThatCannotClose()
    failure = failure_of(lambda: bench.map(0))
    assert failure.kind is FailureKind.OUTPUT
    assert failure.error == f"cannot write file://{bench.attempts}/m-00000.1-0: no quorum"


@pytest.mark.parametrize("error", [MemoryError(), pa.ArrowMemoryError("malloc of 9 failed")])
def test_memory_that_runs_out_is_said_so_with_the_way_out(tmp_path: Path, error: Exception) -> None:
    def explode(line: bytes) -> list[tuple[bytes, int]]:
        raise error

    class StorageWithoutMemory(Storage):
        def open_input(self, url: str) -> IO[bytes]:
            raise error

    bench = bench_of(tmp_path, b"here\n", map=explode)
    assert "the memory limit: give more with --memory" in failure_of(lambda: bench.map(0)).error
    bench.storage = StorageWithoutMemory()
    failure = failure_of(lambda: bench.map(0))
    assert failure.kind is FailureKind.DIED
    assert "the memory limit: give more with --memory" in failure.error
    assert failure.traceback == ""


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Unspeakable(), "map raised Unspeakable: (str() of it fails) on record"),
        (ValueError("\udc80"), "map raised ValueError: \\udc80 on record"),
        (ValueError("two\nlines"), "map raised ValueError: two lines on record"),
        (ValueError("x" * 1_000_000 + "!"), "xxx! on record b'here' in"),
    ],
    ids=["__str__ raises", "not UTF-8", "two lines", "endless"],
)
def test_whatever_a_user_raises_can_be_sent_logged_and_read(
    tmp_path: Path, error: Exception, said: str
) -> None:
    def explode(line: bytes) -> list[tuple[bytes, int]]:
        raise error

    failure = failure_of(lambda: bench_of(tmp_path, b"here\n", map=explode).map(0))
    assert said in failure.error
    assert "explode" in failure.traceback
    assert len(msgspec.msgpack.encode(failure)) < 100_000


def test_a_full_scratch_disk_is_one_line_that_names_it_and_leaves_nothing(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, b"a\n", map=identity)
    segment = bench.scratch / bench.job_id / "m-00000.1-0.segment.tmp"
    segment.parent.mkdir(parents=True)
    segment.symlink_to("/dev/full")
    failure = failure_of(lambda: bench.map(0))
    assert failure.error.startswith(f"no space left below {bench.scratch}")
    assert failure.traceback == ""
    assert not segment.is_symlink()
