"""The local backend on real files: right answers, clean failures, nothing left behind."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import minimr
from minigfs.ports import SystemClock
from minimr.errors import JobCancelled, JobFailed
from minimr.messages import JobState
from tests.storage_cluster import StorageCluster


def map_words(line: bytes) -> Iterator[tuple[bytes, int]]:
    for word in line.split():
        yield word, 1


def word_count() -> minimr.Job:
    return minimr.Job("words", map=map_words, combine=minimr.agg.sum, reduce=minimr.agg.sum)


@pytest.fixture(autouse=True)
def scratch_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Scratch directories of the backend go here; whatever a test did, none is left."""
    root = tmp_path / "scratch"
    root.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(root))
    yield root
    assert list(root.iterdir()) == []


def write_words(path: Path, seed: int, lines: int = 200) -> Counter[str]:
    rng = random.Random(seed)
    rows = [
        " ".join(rng.choice("abcdefgh") * rng.randint(1, 3) for _ in range(rng.randint(0, 6)))
        for _ in range(lines)
    ]
    path.write_text("\n".join(rows))  # the last line without LF
    return Counter(" ".join(rows).split())


def read_counts(output: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    for part in sorted(output.glob("part-r-*")):
        keys = [line.split("\t")[0] for line in part.read_text().splitlines()]
        assert keys == sorted(keys), "keys of a part are in increasing order"
        for line in part.read_text().splitlines():
            key, count = line.split("\t")
            assert key not in counts, "a key is in one part only"
            counts[key] = int(count)
    return counts


@pytest.mark.parametrize("seed", range(6))
def test_answers_equal_an_oracle_for_any_number_of_maps_and_reduces(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    expected: Counter[str] = Counter()
    for name in "abc"[: rng.randint(1, 3)]:
        expected += write_words(tmp_path / f"{name}.txt", seed=seed * 10 + ord(name))
    result = minimr.run(
        word_count(),
        input=str(tmp_path / "*.txt"),
        output=str(tmp_path / "out"),
        reducers=rng.randint(1, 5),
        split_size=rng.choice([101, 1000, 100_000]),
        processes=rng.choice([0, None, None]),
    )
    assert read_counts(tmp_path / "out") == expected
    line_count = sum(len(path.read_text().splitlines()) for path in tmp_path.glob("*.txt"))
    assert result.counters["map.input_records"] == line_count
    assert result.counters["map.attempts.failed"] == 0


def test_executor_processes_give_the_same_bytes_as_threads(tmp_path: Path) -> None:
    write_words(tmp_path / "in.txt", seed=1)
    for name, processes in (("threads", None), ("children", 2)):
        minimr.run(
            word_count(),
            input=str(tmp_path / "in.txt"),
            output=str(tmp_path / name),
            reducers=3,
            split_size=500,
            processes=processes,
        )
    for part in (tmp_path / "threads").glob("part-*"):
        assert part.read_bytes() == (tmp_path / "children" / part.name).read_bytes()


@pytest.mark.parametrize("processes", [0, None])
def test_jobs_in_a_process_that_goes_on_leave_no_file_open(tmp_path: Path, processes: int) -> None:
    write_words(tmp_path / "in.txt", seed=1, lines=20)

    def open_files(number: int) -> set[str]:
        minimr.run(
            word_count(),
            input=str(tmp_path / "in.txt"),
            output=str(tmp_path / f"out-{number}"),
            processes=processes,
        )
        links = list(Path("/proc/self/fd").iterdir())
        return {str(link.readlink()) for link in links if link.is_symlink()}

    before = open_files(0)  # what the first job of a process loads stays
    assert open_files(1) - before == set()


@pytest.mark.parametrize("processes", [0, None, 1])
def test_a_users_exception_is_told_once_with_its_record_and_leaves_nothing(
    tmp_path: Path, processes: int
) -> None:
    (tmp_path / "in.txt").write_bytes(b"fine\nfine too\nboom here\nfine\n")

    def explode(line: bytes) -> Iterator[tuple[bytes, int]]:
        if line.startswith(b"boom"):
            raise ValueError("no good")
        yield line, 1

    job = minimr.Job("explode", map=explode, reduce=minimr.agg.sum)
    with pytest.raises(JobFailed) as caught:
        minimr.run(
            job,
            input=str(tmp_path / "in.txt"),
            output=str(tmp_path / "out"),
            processes=processes,
        )
    message, details = caught.value.message, caught.value.details
    assert "ValueError: no good" in message
    assert "b'boom here'" in message
    assert f"{tmp_path}/in.txt" in message
    assert "14" in message, "the byte offset of the record"
    assert details.count("ValueError: no good") == 1
    assert "in explode" in details
    assert "/minimr/tasks/" not in details, "user frames only"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "scratch"]


def test_a_function_that_kills_its_process_costs_four_attempts_then_fails_clearly(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.txt").write_bytes(b"x\n")

    def crash(line: bytes) -> Iterator[tuple[bytes, int]]:
        import os
        import signal

        print("about to crash", flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
        yield line, 1

    job = minimr.Job("crash", map=crash, reduce=minimr.agg.sum)
    handle = None
    from minimr.runner import submit

    handle = submit(job, input=str(tmp_path / "in.txt"), output=str(tmp_path / "out"), processes=1)
    with pytest.raises(JobFailed, match="SIGSEGV") as caught:
        handle.wait()
    assert handle.status().counters["map.attempts.failed"] == 4
    assert "(log:" not in caught.value.message, "the log is gone with the scratch directory"
    assert caught.value.details.splitlines()[-1].endswith("in crash")
    shown = capfd.readouterr().err
    assert shown.count("about to crash") == 4
    assert "Fatal Python error" not in shown, "the error tells it once"
    assert not (tmp_path / "out").exists()


KILLED = """
import os, sys, time, minimr
def hang(line):
    open(sys.argv[3], "w").close()
    time.sleep(60)
    yield line, 1
job = minimr.Job("hang", map=hang, reduce=minimr.agg.sum)
minimr.run(job, input=sys.argv[1], output=sys.argv[2])
"""


def test_what_a_killed_run_left_is_gone_after_the_next(tmp_path: Path, scratch_root: Path) -> None:
    source, marker = tmp_path / "in.txt", tmp_path / "began"
    source.write_bytes(b"x\n")
    program = [sys.executable, "-c", KILLED, str(source), str(tmp_path / "out"), str(marker)]
    with subprocess.Popen(program, env={**os.environ, "TMPDIR": str(scratch_root)}) as process:
        while not marker.exists():
            time.sleep(0.02)
        held = list(scratch_root.iterdir())
        (scratch_root / "minimr-cluster").mkdir()
        (scratch_root / "minimr-cluster" / "lock").touch()
        minimr.run(word_count(), input=str(source), output=str(tmp_path / "beside"))
        assert [each for each in held if not each.exists()] == [], "it was in use"
        process.kill()
    attempts = (held[0] / "beside").read_text().splitlines()[1]
    Path(attempts.removeprefix("file://")).mkdir(exist_ok=True)
    minimr.run(word_count(), input=str(source), output=str(tmp_path / "next"))
    assert [each for each in held if each.exists()] == []
    assert sorted(tmp_path.glob("_minimr-*")) == []
    (scratch_root / "minimr-cluster" / "lock").unlink()
    (scratch_root / "minimr-cluster").rmdir()


def test_what_executors_print_reaches_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.txt").write_bytes(b"x\n")

    def talk(line: bytes) -> Iterator[tuple[bytes, int]]:
        print("hello from a child")
        yield line, 1

    job = minimr.Job("talk", map=talk, reduce=minimr.agg.sum)
    minimr.run(job, input=str(tmp_path / "in.txt"), output=str(tmp_path / "out"), processes=1)
    captured = capsys.readouterr()
    assert "hello from a child" in captured.err
    assert captured.out == ""


def test_a_cancelled_job_ends_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"x\n" * 10)
    started = threading.Event()

    def slow(line: bytes) -> Iterator[tuple[bytes, int]]:
        started.set()
        time.sleep(0.05)
        yield line, 1

    from minimr.runner import submit

    job = minimr.Job("slow", map=slow, reduce=minimr.agg.sum)
    handle = submit(job, input=str(tmp_path / "in.txt"), output=str(tmp_path / "out"), split_size=2)
    assert started.wait(10)
    handle.cancel()
    with pytest.raises(JobCancelled):
        handle.wait()
    assert handle.status().state is JobState.CANCELLED
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "scratch"]


def test_a_function_that_ends_its_thread_fails_the_task_not_the_backend(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"x\n")

    def leave(line: bytes) -> Iterator[tuple[bytes, int]]:
        sys.exit("enough")
        yield line, 1

    job = minimr.Job("leave", map=leave, reduce=minimr.agg.sum)
    with pytest.raises(JobFailed, match="enough"):
        minimr.run(job, input=str(tmp_path / "in.txt"), output=str(tmp_path / "out"))


_SLOW_SCRIPT = """
import time
import minimr

def slow(line):
    time.sleep(0.02)
    yield line, 1

print("main runs", flush=True)
job = minimr.Job("slow", map=slow, reduce=minimr.agg.sum)
minimr.run(job, input="in.txt", output="out", processes={processes},
           on_status=lambda status: print("status", flush=True))
"""


@pytest.mark.parametrize("processes", ["0", "None", "2"])
def test_ctrl_c_ends_a_run_and_leaves_nothing(
    tmp_path: Path, scratch_root: Path, processes: str
) -> None:
    (tmp_path / "in.txt").write_bytes(b"line\n" * 2000)
    script = tmp_path / "script.py"
    script.write_text(_SLOW_SCRIPT.format(processes=processes))
    process = subprocess.Popen(
        [sys.executable, script.name],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(scratch_root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "main runs\n"
    deadline = time.monotonic() + 20
    while not list(scratch_root.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)  # somewhere in the middle; wherever it is, the end is the same
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode != 0
    assert "JobCancelled" in errors or "KeyboardInterrupt" in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "scratch", "script.py"]


def test_a_scripts_main_module_is_never_run_again(tmp_path: Path, scratch_root: Path) -> None:
    """No guard, no problem: children load functions by value, not by importing the script."""
    (tmp_path / "in.txt").write_bytes(b"b\na\nb\n")
    (tmp_path / "helper.py").write_text("def weight(word):\n    return len(word) * 10\n")
    (tmp_path / "script.py").write_text(
        textwrap.dedent("""
        import minimr
        from helper import weight

        print("main runs")

        def count(line):
            yield line, weight(line)

        job = minimr.Job("mine", map=count, reduce=minimr.agg.sum)
        result = minimr.run(job, input="in.txt", output="out", processes=2)
        print(result.to_arrow().to_pylist())
        """)
    )
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(scratch_root)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "main runs",
        "[{'key': 'a', 'value': 10}, {'key': 'b', 'value': 20}]",
    ]
    assert "main runs" not in done.stderr


def test_a_handle_nobody_waits_for_still_leaves_no_scratch(
    tmp_path: Path, scratch_root: Path
) -> None:
    (tmp_path / "in.txt").write_bytes(b"x\n")
    (tmp_path / "script.py").write_text(
        textwrap.dedent("""
        import minimr
        from minimr.runner import submit

        job = minimr.Job("mine", map=lambda line: [(line, 1)], reduce=minimr.agg.sum)
        handle = submit(job, input="in.txt", output="out")
        """)
    )
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(scratch_root)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("processes", [0, 2])
def test_the_home_named_in_the_call_is_where_the_attempts_read_and_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    monkeypatch.delenv("MINIMR_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    with StorageCluster(tmp_path / "home", chunk_bytes=64 << 10, chunkservers=1) as storage:
        with storage.client.open_writer("/in") as file:
            file.write(b"a b\nb\n")
        minimr.run(
            word_count(), input="minigfs:///in", output="minigfs:///out", backend="local",
            processes=processes, home=str(storage.home),
        )  # fmt: skip
        with storage.client.open_reader("/out/part-r-00000") as part:
            assert part.read_at(0, 100) == b"a\t1\nb\t2\n"


class SlowClock(SystemClock):
    """Shows an hour more from the moment it is told to."""

    late_ms = 0

    def monotonic_ms(self) -> int:
        return super().monotonic_ms() + self.late_ms


@pytest.mark.timeout(30)
def test_the_calling_thread_may_take_an_hour_for_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a debugger: the slot was given up as dead, and the job never ended."""
    clock = SlowClock()
    monkeypatch.setattr("minimr.backends.local.SystemClock", lambda: clock)

    def stop_here(line: bytes) -> Iterator[tuple[bytes, int]]:
        clock.late_ms += 3_600_000
        yield line, 1

    (tmp_path / "in").write_bytes(b"a\nb\nc\n")
    result = minimr.run(
        minimr.Job("debugged", map=stop_here, reduce=minimr.agg.sum), input=str(tmp_path / "in"),
        output=str(tmp_path / "out"), split_size=2, processes=0,
    )  # fmt: skip
    assert result.counters["map.attempts.launched"] == 3
    assert read_counts(tmp_path / "out") == Counter("abc")
