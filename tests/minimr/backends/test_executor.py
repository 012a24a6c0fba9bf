"""User code can do to its own process what it likes: the parent lives, and knows what happened."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import msgspec
import pytest

from minimr.backends.executor import AttemptWork, ExecutorProcess
from minimr.messages import Failure, FailureKind, MapResult
from minimr.tasks.failures import AttemptFailed
from tests.minimr.backends.tiny_jobs import map_work

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[ExecutorProcess]:
    process = ExecutorProcess(log_file=tmp_path / "executor.log")
    yield process
    process.close()


def count_words(line: bytes):
    for word in line.split():
        yield word, 1


def run(
    executor: ExecutorProcess, work: AttemptWork, on_progress=lambda done, total: None,
    is_cancelled=lambda: False,
) -> MapResult:  # fmt: skip
    ends = executor.run(
        work,
        lambda turn, done, total: on_progress(done, total),
        is_cancelled,
        lambda request, has_ended: None,
    )
    (end,) = ends
    if end.failure is not None:
        raise AttemptFailed(end.failure)
    assert isinstance(end.result, MapResult)
    return end.result


def failure_of(
    executor: ExecutorProcess, work: AttemptWork, is_cancelled=lambda: False
) -> Failure:  # fmt: skip
    with pytest.raises(AttemptFailed) as caught:
        run(executor, work, is_cancelled=is_cancelled)
    return caught.value.failure


def await_death(pid: int) -> None:
    """Wait for a process that is not our child; 10 s is far more than a kill takes."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(10_000), f"process {pid} lives on"
    finally:
        os.close(descriptor)


def test_a_map_attempt_runs_in_the_child_and_leaves_a_segment(
    executor: ExecutorProcess, tmp_path: Path
) -> None:
    seen = []
    result = run(
        executor, map_work(count_words, tmp_path),
        on_progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert result.counters["map.input_records"] == 2
    assert result.output is not None
    assert Path(result.output.path).is_file()
    assert seen
    assert seen[-1] == (6, 6)


def test_an_exception_fails_the_attempt_and_the_next_one_runs_in_the_same_child(
    executor: ExecutorProcess, tmp_path: Path
) -> None:
    def sometimes(line: bytes):
        if line == b"bad":
            raise KeyError("no such thing")
        return [(line, 1)]

    failure = failure_of(executor, map_work(sometimes, tmp_path, lines=b"bad\n"))
    assert failure.kind is FailureKind.USER
    assert "KeyError" in failure.error + failure.traceback
    pid = executor.pid
    run(executor, map_work(sometimes, tmp_path, lines=b"good\n", counter=2))
    assert executor.pid == pid


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        ("os.kill(os.getpid(), 9)", "SIGKILL"),
        ("__import__('ctypes').string_at(0)", "SIGSEGV"),
        ("os._exit(3)", "status 3"),
    ],
)
def test_a_dead_child_is_one_failed_attempt_that_says_how_it_died(
    executor: ExecutorProcess, tmp_path: Path, deed: str, words: str
) -> None:
    def die(line: bytes):
        import os  # noqa: F401

        eval(deed)
        return []

    failure = failure_of(executor, map_work(die, tmp_path))
    assert failure.kind is FailureKind.DIED
    assert words in failure.error
    assert str(tmp_path / "executor.log") in failure.error
    assert not executor.is_alive


def test_a_crash_shows_the_python_stack_of_user_code(
    executor: ExecutorProcess, tmp_path: Path
) -> None:
    def crash_here(line: bytes):
        import ctypes

        return [(ctypes.string_at(0), 1)]

    failure = failure_of(executor, map_work(crash_here, tmp_path))
    first, *stack = failure.traceback.splitlines()
    assert first == "Fatal Python error: Segmentation fault"
    assert stack[-1].endswith("in crash_here")
    assert "minimr/tasks" not in failure.traceback
    assert "Extension modules" not in failure.traceback


def test_memory_beyond_the_limit_fails_the_attempt_not_the_machine(
    executor: ExecutorProcess, tmp_path: Path
) -> None:
    def hog(line: bytes):
        return [(line, len(bytearray(600 << 20)))]

    limited = map_work(hog, tmp_path, memory_bytes=200 << 20)
    failure = failure_of(executor, limited)
    assert failure.kind in (FailureKind.USER, FailureKind.DIED)
    assert "MemoryError" in failure.error + failure.traceback


def test_memory_within_the_limit_is_granted(executor: ExecutorProcess, tmp_path: Path) -> None:
    def modest(line: bytes):
        return [(line, len(bytearray(100 << 20)))]

    run(executor, map_work(modest, tmp_path, memory_bytes=300 << 20))


def test_kill_from_another_thread_ends_the_attempt_as_cancelled(
    executor: ExecutorProcess, tmp_path: Path
) -> None:
    def for_ever(line: bytes):
        import time

        while True:
            time.sleep(1)

    threading.Timer(1.0, executor.kill).start()
    failure = failure_of(executor, map_work(for_ever, tmp_path))
    assert failure.kind is FailureKind.CANCELLED


def test_is_cancelled_ends_an_attempt_that_never_reports(
    executor: ExecutorProcess, tmp_path: Path
) -> None:
    def deaf(line: bytes):
        while True:
            pass

    until_ns = time.monotonic_ns() + 700_000_000
    failure = failure_of(
        executor, map_work(deaf, tmp_path), is_cancelled=lambda: time.monotonic_ns() > until_ns
    )
    assert failure.kind is FailureKind.CANCELLED


def test_what_user_code_started_ends_with_its_executor(
    executor: ExecutorProcess, tmp_path: Path
) -> None:
    def start_another_and_die(line: bytes):
        import os
        import subprocess

        child = subprocess.Popen(["sleep", "60"])
        (tmp_path / "pid").write_text(str(child.pid))
        os.kill(os.getpid(), 9)

    failure_of(executor, map_work(start_another_and_die, tmp_path))
    await_death(int((tmp_path / "pid").read_text()))


def test_a_death_is_noticed_even_when_a_fork_holds_the_channel_open(
    executor: ExecutorProcess, tmp_path: Path
) -> None:
    def fork_and_die(line: bytes):
        import os
        import time

        if os.fork() == 0:
            os.setpgid(0, 0)
            time.sleep(5)
            os._exit(0)
        os.kill(os.getpid(), 9)

    began_ns = time.monotonic_ns()
    assert failure_of(executor, map_work(fork_and_die, tmp_path)).kind is FailureKind.DIED
    assert time.monotonic_ns() - began_ns < 4_000_000_000


def test_none_begins_of_attempts_that_were_stopped_before_the_first(
    executor: ExecutorProcess, tmp_path: Path
) -> None:
    work = map_work(count_words, tmp_path)
    executor.page.clear()
    executor.page.stop()
    ask = (lambda *_: None, lambda: False, lambda *_: None)
    assert list(executor.run(work, *ask)) == []
    executor.page.clear()
    (end,) = executor.run(work, *ask)
    assert end.failure is None


def test_what_user_code_prints_goes_to_the_log(executor: ExecutorProcess, tmp_path: Path) -> None:
    def talk(line: bytes):
        print("said", line)
        return []

    run(executor, map_work(talk, tmp_path, lines=b"hello\n"))
    assert "said b'hello'" in (tmp_path / "executor.log").read_text()


def test_code_that_cannot_be_loaded_fails_with_what_to_do(
    executor: ExecutorProcess, tmp_path: Path
) -> None:
    work = map_work(count_words, tmp_path)
    broken = msgspec.structs.replace(work.spec, code=b"cno_such_module\nthing\n.")
    failure = failure_of(
        executor,
        type(work)(
            spec=broken, assignments=work.assignments, scratch=work.scratch,
            worker_id=work.worker_id, host=work.host,
        ),
    )  # fmt: skip
    assert failure.kind is FailureKind.USER
    assert "no_such_module" in failure.error


def test_a_killed_parent_takes_its_executor_down(tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib\n"
        "from minimr.backends.executor import AttemptWork, ExecutorProcess\n"
        "child = ExecutorProcess(log_file=pathlib.Path(sys.argv[1]))\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "log")], stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    await_death(pid)


def test_an_executor_outlives_the_thread_that_made_it(tmp_path: Path) -> None:
    made: list[ExecutorProcess] = []
    thread = threading.Thread(
        target=lambda: made.append(ExecutorProcess(log_file=tmp_path / "log"))
    )
    thread.start()
    thread.join()
    (executor,) = made
    try:
        run(executor, map_work(count_words, tmp_path))
    finally:
        executor.close()
