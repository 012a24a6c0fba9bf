"""Recording, keeping and re-checking histories."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.linearizability.__main__ import main
from tests.linearizability.checker import check
from tests.linearizability.history import (
    History,
    InvalidHistory,
    Operation,
    load_history,
    parse_history,
)
from tests.linearizability.jepsen_log import parse_jepsen_log
from tests.linearizability.models import CounterModel, RegisterModel


def _sample(log: Callable[[str], object] | None = None) -> History:
    history = History(clock=lambda: 0, log=log)
    append = history.invoke("c1", ("append", "k", 1))
    lost = history.invoke("c2", ("append", "k", 2))
    history.ok(append, 1)
    history.unknown(lost)
    refused = history.invoke("c2", ("append", "k", 3))
    history.fail(refused)
    read = history.invoke("c1", ("get", "k"))
    history.ok(read, (1, 2))
    history.invoke("c3", ("get", "k"))
    return history


def test_what_surely_failed_is_left_out_and_what_never_ended_is_unknown() -> None:
    operations = _sample().operations()

    assert operations == (
        Operation(client="c1", call=("append", "k", 1), invoked_at=0, returned_at=2, result=1),
        Operation(client="c2", call=("append", "k", 2), invoked_at=1),
        Operation(client="c1", call=("get", "k"), invoked_at=6, returned_at=7, result=(1, 2)),
        Operation(client="c3", call=("get", "k"), invoked_at=8),
    )


def test_events_at_one_time_keep_the_order_in_which_they_were_recorded() -> None:
    history = History(clock=lambda: 5)
    write = history.invoke("c1", ("write", "x", 1))
    history.ok(write)
    read = history.invoke("c1", ("read", "x"))
    history.ok(read, None)

    assert not check(history.operations(), RegisterModel()).ok


def test_a_saved_history_is_the_one_that_was_recorded(tmp_path: Path) -> None:
    history = _sample()
    history.save(tmp_path / "history.jsonl")

    assert load_history(tmp_path / "history.jsonl") == history.operations()


def test_the_lines_told_while_recording_are_the_history_too() -> None:
    lines: list[str] = []
    history = _sample(log=lines.append)

    assert parse_history(lines) == history.operations()
    assert parse_history([*lines, '{"event": "ok", "i']) == history.operations()


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (['{"event": "ok", "id": 0, "at": 1, "result": null}'], "line 1"),
        (["nonsense", "{}"], "line 1 is no JSON"),
        (['{"event": "invoke", "id": 0, "at": 1, "client": "c", "call": []}'], "a call is a list"),
        (['{"event": "invoke", "id": 0, "at": 1.5, "client": "c", "call": ["r"]}'], "no integer"),
        (
            [
                '{"event": "invoke", "id": 0, "at": 5, "client": "c", "call": ["read", "x"]}',
                '{"event": "ok", "id": 0, "at": 4, "result": null}',
            ],
            "before it begins",
        ),
    ],
)
def test_a_history_that_contradicts_itself_is_refused(lines: list[str], says: str) -> None:
    with pytest.raises(InvalidHistory, match=says):
        parse_history(lines)


def test_an_operation_ends_once() -> None:
    history = History(clock=lambda: 0)
    number = history.invoke("c", ("read", "x"))
    history.unknown(number)

    with pytest.raises(InvalidHistory, match="ends twice"):
        history.ok(number)


class _SharedCounter:
    """Adds without a lock: reads, lets others run, writes."""

    def __init__(self, lock: "threading.Lock | None") -> None:
        self._lock = lock
        self._sum = 0

    def add(self, amount: int) -> int:
        if self._lock is None:
            return self._add(amount)
        with self._lock:
            return self._add(amount)

    def _add(self, amount: int) -> int:
        before = self._sum
        time.sleep(0)  # where another thread may come in
        self._sum = before + amount
        return self._sum


def _history_of_threads(counter: _SharedCounter) -> tuple[Operation, ...]:
    history = History(clock=time.monotonic_ns)

    def client(name: str) -> None:
        for _ in range(100):
            number = history.invoke(name, ("add", "n", 1))
            history.ok(number, counter.add(1))

    threads = [threading.Thread(target=client, args=(f"c{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return history.operations()


def test_threads_around_a_lock_are_linearizable_and_without_it_are_caught() -> None:
    assert check(_history_of_threads(_SharedCounter(threading.Lock())), CounterModel()).ok
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        caught = any(
            not check(_history_of_threads(_SharedCounter(None)), CounterModel()).ok
            for _ in range(50)
        )
    finally:
        sys.setswitchinterval(interval)
    assert caught


def test_the_command_judges_a_kept_history_and_its_exit_code_says_how(tmp_path: Path) -> None:
    good, bad, broken = tmp_path / "good", tmp_path / "bad", tmp_path / "broken"
    _sample().save(good)
    history = _sample()
    history.ok(history.invoke("c4", ("get", "k")), (2, 1))
    history.save(bad)
    broken.write_text(json.dumps({"event": "ok", "id": 1, "at": 0}) + "\n")

    assert main([str(good), "--model", "kv"]) == 0
    assert main([str(bad), "--model", "kv"]) == 1
    assert main([str(bad), "--model", "kv", "--steps", "1"]) == 3
    assert main([str(broken), "--model", "kv"]) == 2
    assert main([str(good), "--model", "register"]) == 2
    assert main([str(tmp_path / "nothing"), "--model", "kv"]) == 2


def test_the_command_runs_as_a_module(tmp_path: Path) -> None:
    _sample().save(tmp_path / "history")
    root = Path(__file__).parents[2]

    done = subprocess.run(
        [sys.executable, "-m", "tests.linearizability", str(tmp_path / "history"), "--model", "kv"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("linearizable: 3 operations in 1 independent parts, model kv")


JEPSEN_LOG = """\
INFO  jepsen.util - 0\t:invoke\t:read\tnil
INFO  jepsen.util - 1\t:invoke\t:write\t4
INFO  jepsen.util - 0\t:ok\t:read\tnil
INFO  jepsen.util - 1\t:ok\t:write\t4
INFO  jepsen.util - 2\t:invoke\t:cas\t[3 0]
INFO  jepsen.util - 2\t:fail\t:cas\t[3 0]
INFO  jepsen.util - 2\t:invoke\t:write\t2
INFO  jepsen.util - 2\t:info\t:write\t:timed-out
INFO  jepsen.util - 3\t:invoke\t:read\tnil
INFO  jepsen.util - 3\t:fail\t:read\t:timed-out
INFO  jepsen.util - 0\t:invoke\t:read\tnil
INFO  jepsen.util - 0\t:ok\t:read\t2
INFO  jepsen.util - 1\t:invoke\t:read\tnil
INFO  jepsen.util - 1\t:ok\t:read\t{last}
"""


@pytest.mark.parametrize(("last", "ok"), [("2", True), ("4", False), ("0", False)])
def test_logs_of_jepsens_etcd_test_are_read(last: str, ok: bool, tmp_path: Path) -> None:
    text = JEPSEN_LOG.format(last=last)
    operations = parse_jepsen_log(text.splitlines())
    (tmp_path / "etcd.log").write_text(text)

    assert len(operations) == 7
    assert [each.call for each in operations if each.unknown] == [
        ("write", "register", 2),
        ("read", "register"),
    ]
    assert check(operations, RegisterModel()).ok is ok
    assert main([str(tmp_path / "etcd.log"), "--jepsen"]) == (0 if ok else 1)
