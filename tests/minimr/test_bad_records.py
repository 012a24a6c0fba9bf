"""Records that the user's function cannot stand, and files that tasks write beside the output."""

import base64
import ctypes
import errno
import json
import os
import signal
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

import msgspec
import pytest

import minimr
from minimr.errors import JobFailed, JobUsageError
from minimr.formats.storage import Storage
from minimr.ids import TaskPhase
from minimr.messages import MapAssignment
from minimr.tasks.gasp import GaspPage
from minimr.tasks.map_task import map_split
from tests.minimr.tasks.harness import Bench, splits_of


def count_field(line: bytes) -> Iterator[tuple[bytes, int]]:
    yield line.split(b" ")[1], 1


def kill_on_poison(line: bytes) -> Iterator[tuple[bytes, int]]:
    if line.startswith(b"poison"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if line.startswith(b"null"):
        ctypes.string_at(0)
    yield line, 1


def give_nonsense(line: bytes) -> Iterator[object]:
    yield (line, 1) if line != b"bad" else "nonsense"


def note_long_lines(line: bytes) -> Iterator[tuple[bytes, int]]:
    if len(line) > 5:
        minimr.side_output("long-lines").write(line + b"\n")
    yield line[:1], 1


def quarantined(output: Path) -> list[dict[str, object]]:
    return [
        json.loads(line)
        for file in sorted(output.glob("_quarantine-*.jsonl"))
        for line in file.read_text().splitlines()
    ]


def total(output: Path) -> int:
    return sum(
        int(line.split("\t")[1])
        for part in output.glob("part-*")
        for line in part.read_text().splitlines()
    )


def summed(function: object) -> minimr.Job:
    return minimr.Job("sums", map=function, combine=minimr.agg.sum, reduce=minimr.agg.sum)


def test_bad_records_go_to_quarantine_with_file_offset_and_reason(tmp_path: Path) -> None:
    lines = [b"x y"] * 1000
    lines[17], lines[900] = b"\xffone", b"two"
    (tmp_path / "in").write_bytes(b"\n".join(lines))
    result = minimr.run(
        summed(count_field), input=str(tmp_path / "in"), output=str(tmp_path / "out"), max_bad=2
    )
    assert total(tmp_path / "out") == 998
    assert result.counters["map.bad_records"] == 2
    found = quarantined(tmp_path / "out")
    assert [line["offset"] for line in found] == [17 * 4, 17 * 4 + 5 + 882 * 4]
    assert {line["url"] for line in found} == {f"file://{tmp_path / 'in'}"}
    assert all("IndexError" in str(line["reason"]) for line in found)
    assert [base64.b64decode(str(line["raw"])) for line in found] == [b"\xffone", b"two"]


def test_one_bad_record_too_many_fails_the_job_and_publishes_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x y\none\ntwo\n")
    with pytest.raises(JobFailed, match=r"1 of --max-bad.*at byte 8") as caught:
        minimr.run(
            summed(count_field), input=str(tmp_path / "in"), output=str(tmp_path / "out"), max_bad=1
        )
    assert caught.value.details.count("Traceback") == 1, "the second try's"
    assert "/minimr/tasks/" not in caught.value.details, "user frames only"
    assert [entry.name for entry in tmp_path.iterdir()] == ["in"]


def test_the_budget_is_the_jobs_not_each_tasks(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / str(number)).write_bytes(b"x y\none\n" * 1)
    with pytest.raises(JobFailed, match="bad records"):
        minimr.run(
            summed(count_field), input=str(tmp_path / "in"), output=str(tmp_path / "out"),
            max_bad=2, split_size=1,
        )  # fmt: skip


def test_what_a_function_must_not_return_is_bad_too(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"a\nbad\nb\n" * 50)
    result = minimr.run(
        summed(give_nonsense), input=str(tmp_path / "in"), output=str(tmp_path / "out"), max_bad=50
    )
    assert total(tmp_path / "out") == 100
    assert result.counters["map.bad_records"] == 50


def test_what_a_bad_record_did_counts_for_nothing_and_a_second_try_counts_once(
    tmp_path: Path,
) -> None:
    failed_before: set[bytes] = set()

    def map_line(line: bytes) -> Iterator[object]:
        minimr.increment("seen")
        minimr.side_output("seen").write(line + b"\n")
        if line == b"bad":
            minimr.side_output("seen").write(b"x" * (3 << 20))
            minimr.side_output("only-of-bad-ones").write(line)
            raise ValueError(line)
        if line == b"flaky" and line not in failed_before:
            failed_before.add(line)
            raise ValueError(line)
        yield (line, 1) if line != b"odd" else "nonsense"

    lines = [b"a", b"bad", b"b", b"odd", b"flaky", b"bad", b"a", b"odd"]
    (tmp_path / "in").write_bytes(b"\n".join(lines))
    output = tmp_path / "out"
    result = minimr.run(summed(map_line), input=str(tmp_path / "in"), output=str(output), max_bad=4)
    good = [line for line in lines if line not in (b"bad", b"odd")]
    assert result.counters["map.bad_records"] == 4
    assert result.counters["seen"] == len(good)
    assert (output / "seen-m-00000").read_bytes().split() == good
    assert not list(output.glob("only-of-bad-ones*"))


def test_side_output_without_pairs_does_not_pile_up(tmp_path: Path) -> None:
    """What is held back until records are known to be good is bounded."""
    size = 300_000

    def map_line(line: bytes) -> Iterator[tuple[bytes, int]]:
        minimr.side_output("all").write(line * size)
        yield from ()

    (tmp_path / "in").write_bytes(b"0\n1\n2\n3\n" * 100)
    tracemalloc.start()
    try:
        minimr.run(
            minimr.Job("aside", map=map_line, reduce=minimr.agg.sum),
            input=str(tmp_path / "in"), output=str(tmp_path / "out"), max_bad=1, processes=0,
        )  # fmt: skip
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "out" / "all-m-00000").stat().st_size == 400 * size
    assert peak < 40 * size


@pytest.mark.parametrize("max_bad", [0, 1])
def test_a_side_output_that_cannot_be_written_is_no_fault_of_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_bad: int
) -> None:
    open_output = Storage.open_output

    def refuse_sides(storage: Storage, url: str) -> IO[bytes]:
        if url.endswith(".long-lines"):
            raise OSError(errno.ENOSPC, "the disk is full", url)
        return open_output(storage, url)

    monkeypatch.setattr(Storage, "open_output", refuse_sides)
    (tmp_path / "in").write_bytes(b"long enough\n")
    with pytest.raises(JobFailed, match="the disk is full") as raised:
        minimr.run(
            summed(note_long_lines), input=str(tmp_path / "in"), output=str(tmp_path / "out"),
            max_bad=max_bad,
        )  # fmt: skip
    assert "map raised" not in str(raised.value)


def test_only_functions_on_records_can_set_them_aside(tmp_path: Path) -> None:
    job = minimr.Job("batches", map_batches=lambda batch: batch, reduce=minimr.agg.sum)
    (tmp_path / "in").write_bytes(b"a\n")
    with pytest.raises(JobUsageError, match="records"):
        minimr.run(job, input=str(tmp_path / "in"), output=str(tmp_path / "out"), max_bad=1)


class Died(BaseException):
    """Stands for the end of the process."""


def test_a_mark_means_the_same_record_whatever_memory_the_attempts_workers_have(
    tmp_path: Path,
) -> None:
    lines = [b"%d" % number for number in range(60_000)]
    lines[50_000] = b"poison"
    (tmp_path / "in").write_bytes(b"\n".join(lines))
    mapped: list[bytes] = []

    def map_line(line: bytes) -> Iterator[tuple[bytes, int]]:
        if line == b"poison":
            raise Died
        mapped.append(line)
        yield line, 1

    def run_attempt(memory_bytes: int, skips: tuple[str, ...]) -> GaspPage:
        bench = Bench(job=summed(map_line), splits=splits_of([tmp_path / "in"]), directory=tmp_path)
        assignment = MapAssignment(
            attempt=bench.attempt_id(TaskPhase.MAP, 0),
            split=bench.splits[0],
            partition_count=1,
            skips=skips,
        )
        context = bench.context(assignment)
        spec = msgspec.structs.replace(bench.spec, max_bad=1, memory_bytes=memory_bytes)
        with suppress(Died):
            map_split(replace(context, spec=spec), assignment, lambda pairs: None)
        return context.page

    mark = run_attempt(16 << 20, ()).mark
    mapped.clear()
    run_attempt(1 << 30, (mark,))
    assert mapped == [line for line in lines if line != b"poison"]


@pytest.mark.e2e
def test_a_record_that_ends_its_process_twice_is_skipped_and_named(tmp_path: Path) -> None:
    lines = [b"x"] * 50_000
    lines[31_000], lines[41_000] = b"poison 1", b"null 2"
    (tmp_path / "in").write_bytes(b"\n".join(lines))
    result = minimr.run(
        summed(kill_on_poison), input=str(tmp_path / "in"), output=str(tmp_path / "out"),
        max_bad=2, processes=1,
    )  # fmt: skip
    assert total(tmp_path / "out") == 49_998
    assert result.counters["map.bad_records"] == 2
    assert result.counters["map.attempts.failed"] == 4  # twice for each
    found = quarantined(tmp_path / "out")
    assert [(line["offset"], line["record"]) for line in found] == [
        (62_000, "poison 1"), (62_000 + 9 + 9_999 * 2, "null 2"),
    ]  # fmt: skip


@pytest.mark.e2e
def test_without_a_budget_a_deadly_record_fails_the_job_by_name(
    tmp_path: Path,
) -> None:
    (tmp_path / "in").write_bytes(b"x\n" * 5000 + b"poison\n")
    with pytest.raises(JobFailed, match=r"SIGSEGV.*poison.*at byte 10000"):
        minimr.run(
            summed(kill_on_poison), input=str(tmp_path / "in"), output=str(tmp_path / "out"),
            processes=1,
        )  # fmt: skip


def test_a_users_bug_is_named_once_with_line_file_and_offset(tmp_path: Path) -> None:
    for number in range(3):
        lines = [b"a b"] * 1000
        if number == 2:
            lines[734] = b"short"
        (tmp_path / f"{number}.log").write_bytes(b"\n".join(lines))
    with pytest.raises(JobFailed) as raised:
        minimr.run(summed(count_field), input=str(tmp_path / "*.log"), output=str(tmp_path / "out"))
    text = str(raised.value)
    assert "b'short'" in text
    assert f"{tmp_path}/2.log at byte {734 * 4}" in text
    assert text.count("IndexError") == 2  # in the message, and at the end of the one traceback
    assert 'line.split(b" ")[1]' in text
    assert "minimr/tasks" not in text


def test_side_outputs_are_published_with_the_parts(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"short\nmuch longer\nlong enough\n")
    result = minimr.run(
        summed(note_long_lines), input=str(tmp_path / "in"), output=str(tmp_path / "out")
    )
    assert (tmp_path / "out" / "long-lines-m-00000").read_bytes() == b"much longer\nlong enough\n"
    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_bytes())
    (side,) = manifest["sides"]
    assert (side["name"], side["records"]) == ("long-lines-m-00000", 2)
    assert [part.name for part in result.parts] == ["part-r-00000"]


@pytest.mark.parametrize("name", ["", "part-r-00000", "_manifest.json", "a/b", "..", "x" * 65])
def test_a_side_output_cannot_take_another_files_place(tmp_path: Path, name: str) -> None:
    def write(line: bytes) -> Iterator[tuple[bytes, int]]:
        minimr.side_output(name)
        yield line, 1

    (tmp_path / "in").write_bytes(b"x\n")
    with pytest.raises(JobFailed, match="side output"):
        minimr.run(summed(write), input=str(tmp_path / "in"), output=str(tmp_path / "out"))


def test_side_outputs_are_for_tasks() -> None:
    with pytest.raises(JobUsageError):
        minimr.side_output("x")


def test_records_that_their_format_cannot_read_go_to_quarantine_as_well(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b'{"n":1}\n{"n":\n{"n":2}\n{}\n')
    job = minimr.Job("sums", map=lambda row: [("n", row["n"])], reduce=minimr.agg.sum)
    result = minimr.run(
        job, input=str(tmp_path / "in"), output=str(tmp_path / "out"), max_bad=2,
        settings={"input_format": "jsonl"},
    )  # fmt: skip
    assert result.to_arrow().to_pylist() == [{"key": "n", "value": 3}]
    assert result.counters["map.bad_records"] == 2
    found = quarantined(tmp_path / "out")
    assert [line["offset"] for line in found] == [8, 22]
    assert base64.b64decode(str(found[0]["raw"])) == b'{"n":'
    with pytest.raises(JobFailed, match="at byte 8: this line is no JSON"):
        minimr.run(
            job, input=str(tmp_path / "in"), output=str(tmp_path / "none"),
            settings={"input_format": "jsonl"},
        )  # fmt: skip


def test_a_reason_that_is_not_utf8_is_written_all_the_same(tmp_path: Path) -> None:
    def refuse(line: bytes) -> Iterator[tuple[bytes, int]]:
        raise ValueError(line.decode("utf-8", "surrogateescape"))

    (tmp_path / "in").write_bytes(b"\xff\n")
    job = minimr.Job("refuses", map=refuse, reduce=minimr.agg.sum)
    minimr.run(
        job, input=str(tmp_path / "in"), output=str(tmp_path / "out"), processes=0, max_bad=1
    )
    assert [line["reason"] for line in quarantined(tmp_path / "out")] == [r"ValueError: \udcff"]
