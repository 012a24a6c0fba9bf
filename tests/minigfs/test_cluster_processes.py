"""Starting, finding and stopping processes, with small programs in the place of servers."""

import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from minigfs.cluster import (
    ClusterLayout,
    ClusterState,
    ProcessEvent,
    ProcessKind,
    ProcessRecord,
    announce_ready,
    load_state,
    running_pid,
    start_missing,
    stop_all,
)
from minigfs.errors import StartFailed

SERVE = "import signal, minigfs.cluster as c; c.announce_ready('{address}'); signal.pause()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SERVE
PARENT = "import subprocess, sys; subprocess.Popen(['sleep', '60']);" + SERVE
WHERE = "import os, signal, minigfs.cluster as c; c.announce_ready(os.environ['W']); signal.pause()"
DIES = "import sys; print('starting'); sys.exit('no disk here')"
MUTE = "import signal; signal.pause()"


def kind(program: str) -> ProcessKind:
    return ProcessKind(
        command=lambda _layout, _state, _record: [
            sys.executable,
            "-c",
            program.replace("{address}", ""),
        ]
    )


KINDS = {
    "serve": kind(SERVE),
    "stubborn": kind(STUBBORN),
    "parent": kind(PARENT),
    "dies": kind(DIES),
    "mute": kind(MUTE),
}


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[ClusterLayout]:
    layout = ClusterLayout(tmp_path / "home")
    yield layout
    state = load_state(layout)
    if state is not None:
        stop_all(layout, state, timeout_ms=500)


def cluster_of(*roles: str) -> ClusterState:
    return ClusterState(
        cluster_id="c1",
        chunk_bytes=1024,
        replication=1,
        processes=tuple(
            ProcessRecord(name=f"{role}-{number}", role=role) for number, role in enumerate(roles)
        ),
    )


def test_processes_are_started_once_and_stopped(layout: ClusterLayout) -> None:
    state = start_missing(layout, cluster_of("serve", "serve"), KINDS)
    pids = [running_pid(record) for record in state.processes]
    assert None not in pids
    assert load_state(layout) == state
    events: list[str] = []
    again = start_missing(layout, state, KINDS, progress=lambda event: events.append(event.what))
    assert again == state
    assert events == ["running", "running"]
    stopped = stop_all(layout, state)
    assert [running_pid(record) for record in state.processes] == [None, None]
    assert [record.pid for record in stopped.processes] == [None, None]


def test_only_what_is_missing_is_started(layout: ClusterLayout) -> None:
    state = start_missing(layout, cluster_of("serve", "serve"), KINDS)
    first, second = (running_pid(record) for record in state.processes)
    assert first is not None
    os.kill(first, signal.SIGKILL)
    state = start_missing(layout, state, KINDS)
    assert running_pid(state.processes[0]) not in (None, first)
    assert running_pid(state.processes[1]) == second


def test_a_process_outlives_its_session_and_starts_in_the_home(layout: ClusterLayout) -> None:
    state = start_missing(layout, cluster_of("serve"), KINDS)
    pid = running_pid(state.processes[0])
    assert pid is not None
    assert os.getsid(pid) == pid
    assert Path(f"/proc/{pid}/cwd").readlink() == layout.home
    assert {Path(f"/proc/{pid}/fd/{fd}").readlink() for fd in (1, 2)} == {
        layout.log_file("serve-0")
    }
    assert Path(f"/proc/{pid}/fd/0").readlink() == Path("/dev/null")


def test_a_reused_pid_is_not_taken_for_ours_nor_killed(layout: ClusterLayout) -> None:
    state = start_missing(layout, cluster_of("serve"), KINDS)
    (record,) = state.processes
    assert record.started is not None
    boot, _, tick = record.started.partition(":")
    for started in (f"{boot}:{int(tick) - 1}", f"another-boot:{tick}"):
        other = msgspec.structs.replace(record, started=started)
        assert running_pid(other) is None
        stop_all(layout, state.with_processes([other]))
        assert running_pid(record) == record.pid
    stop_all(layout, state)


def test_an_early_death_shows_the_last_line_and_spares_the_others(layout: ClusterLayout) -> None:
    with pytest.raises(StartFailed, match=r"dies-1 did not start: no disk here .*dies-1\.log"):
        start_missing(layout, cluster_of("serve", "dies", "serve"), KINDS)
    state = load_state(layout)
    assert state is not None
    assert [running_pid(record) is not None for record in state.processes] == [True, False, True]


def test_the_line_shown_is_of_this_start(layout: ClusterLayout) -> None:
    layout.make()
    layout.log_file("dies-0").write_text("an old story\n")
    silent = {"dies": kind("raise SystemExit(1)")}
    with pytest.raises(StartFailed, match="without a word"):
        start_missing(layout, cluster_of("dies"), silent)


def test_a_process_that_never_answers_is_given_up(layout: ClusterLayout) -> None:
    with pytest.raises(StartFailed, match=r"mute-0 did not answer within 0\.3 s"):
        start_missing(layout, cluster_of("mute"), KINDS, timeout_ms=300)


def test_a_taken_port_is_named_before_anything_is_spawned(layout: ClusterLayout) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        (record,) = cluster_of("serve").processes
        state = cluster_of().with_processes([msgspec.structs.replace(record, address=address)])
        with pytest.raises(StartFailed, match=f"serve-0 cannot listen on {address}: .*in use"):
            start_missing(layout, state, KINDS)
    assert not layout.log_file("serve-0").exists()


def test_a_role_nobody_here_knows_is_left_to_its_own_up(layout: ClusterLayout) -> None:
    with pytest.raises(StartFailed, match=r"has worker, .*minimr up"):
        start_missing(layout, cluster_of("serve", "worker"), KINDS)
    assert not layout.log_file("serve-0").exists()


def test_an_announced_address_is_kept(layout: ClusterLayout) -> None:
    kinds = {"serve": kind(SERVE.replace("{address}", "127.0.0.1:1"))}
    state = start_missing(layout, cluster_of("serve"), kinds)
    assert state.processes[0].address == "127.0.0.1:1"


def test_what_does_not_stop_is_killed_with_what_it_started(layout: ClusterLayout) -> None:
    state = start_missing(layout, cluster_of("stubborn", "parent"), KINDS)
    parent = running_pid(state.processes[1])
    assert parent is not None
    (child,) = map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    events: list[ProcessEvent] = []
    stop_all(layout, state, progress=events.append, timeout_ms=300)
    assert [event.what for event in events] == ["killed", "stopped"]
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text():
        assert time.monotonic() < deadline, "a grandchild survived"
        time.sleep(0.01)


def test_stages_start_upwards_and_stop_downwards(layout: ClusterLayout) -> None:
    late = ProcessRecord(name="late", role="serve", stage=1)
    early = ProcessRecord(name="early", role="serve", stage=0)
    events: list[tuple[str, str]] = []

    def note(event: ProcessEvent) -> None:
        events.append((event.what, event.record.name))

    state = cluster_of().with_processes([late, early])
    state = start_missing(layout, state, KINDS, progress=note)
    stop_all(layout, state, progress=note)
    assert events == [
        ("started", "early"),
        ("started", "late"),
        ("stopped", "late"),
        ("stopped", "early"),
    ]


def test_variables_of_a_kind_reach_its_process(layout: ClusterLayout) -> None:
    kinds = {
        "serve": ProcessKind(
            command=lambda _layout, _state, _record: [
                sys.executable,
                "-c",
                WHERE,
            ],
            environment=lambda _layout, _state, record: {"W": record.name},
        )
    }
    state = start_missing(layout, cluster_of("serve"), kinds)
    assert state.processes[0].address == "serve-0"


def test_announcing_without_a_parent_that_listens_is_harmless(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    announce_ready("127.0.0.1:1")
    read_end, write_end = os.pipe()
    os.close(read_end)
    monkeypatch.setenv("MINIGFS_READY_DESCRIPTOR", str(write_end))
    announce_ready("127.0.0.1:1")
    assert "MINIGFS_READY_DESCRIPTOR" not in os.environ


def test_two_starts_wait_for_each_other(layout: ClusterLayout) -> None:
    order: list[str] = []
    waiting = threading.Event()

    def second() -> None:
        with layout.locked(waiting=waiting.set):
            order.append("second")

    with layout.locked():
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(5)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_in_a_copy_of_a_home_the_processes_of_the_original_are_left_alone(
    layout: ClusterLayout, tmp_path: Path
) -> None:
    state = start_missing(layout, cluster_of("serve"), KINDS)
    shutil.copytree(layout.home, tmp_path / "copy")
    copied = ClusterLayout(tmp_path / "copy")
    found = load_state(copied)
    assert found is not None
    assert [record.pid for record in found.processes] == [None]
    stop_all(copied, found, timeout_ms=500)
    assert running_pid(state.processes[0]) is not None
