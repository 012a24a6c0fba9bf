"""The verbs on files through the real command: results on stdout, one line of error, exit codes."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigfs.cli import minigfs
from minigfs.cli.paths import parse_path, pattern_of
from minigfs.cli.transfer import first_lines, last_lines, local_tree
from minigfs.cluster import ClusterLayout
from minigfs.errors import InvalidPath
from minigfs.fs import MinigfsFileSystem
from minigfs.terminal import run_cli

Run = Callable[..., subprocess.CompletedProcess[bytes]]

LINES = b"".join(b"line %d\n" % number for number in range(30_000))  # six chunks


@pytest.fixture
def run(cli: Run, cluster: ClusterLayout) -> Run:
    def run_on_cluster(
        *arguments: str, stdin: bytes = b"", code: int = 0
    ) -> subprocess.CompletedProcess[bytes]:
        done = cli(*arguments, home=cluster.home, stdin=stdin)
        assert done.returncode == code, done.stderr.decode()
        if code == 0:
            assert done.stderr == b""
        return done

    return run_on_cluster


# -- pure -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("/a/*.log", ["/a/x.log", "/a/.log"], ["/a/b/x.log", "/a/xlog"]),
        ("/a/?", ["/a/b"], ["/a/", "/a/bc", "/a//"]),
        ("/a/**/z", ["/a/z", "/a/b/z", "/a/b/c/z"], ["/z", "/a/bz"]),
        ("/a/**", ["/a/b", "/a/b/c"], ["/b"]),
        ("/a/[0-3]", ["/a/0", "/a/3"], ["/a/4"]),
        ("/a/[!0-3]", ["/a/4"], ["/a/0"]),
        ("/a/[x", ["/a/[x"], ["/a/x"]),
        ("/a/[!]", ["/a/[!]"], ["/a/!", "/a/x"]),
        ("/a/[^]", ["/a/[^]"], ["/a/^", "/a/x"]),
        ("/a/[^0-3]", ["/a/4"], ["/a/0"]),
        ("/a/[x&&y]", ["/a/x", "/a/&"], ["/a/z"]),
        ("/a.b/*", ["/a.b/c"], ["/axb/c"]),
        ("/a/*\n", ["/a/b\n"], ["/a/b"]),
    ],
)
def test_patterns(pattern: str, matching: list[str], other: list[str]) -> None:
    matcher = pattern_of(pattern)
    assert [path for path in (*matching, *other) if matcher.fullmatch(path)] == matching


def test_what_is_no_pattern_is_refused() -> None:
    with pytest.raises(InvalidPath, match=r"/a/\[z-a\]: not a pattern: bad character range z-a"):
        pattern_of("/a/[z-a]")


@pytest.mark.parametrize("text", ["logs", "minigfs://logs/a", "file:///a", ""])
def test_what_is_no_path_is_answered_with_advice(text: str) -> None:
    with pytest.raises(InvalidPath, match=r"/"):
        parse_path(text)


def test_paths_are_tidied() -> None:
    assert parse_path("minigfs:///a//b/") == parse_path("/a/b") == "/a/b"
    assert parse_path("/") == parse_path("minigfs:///") == "/"


@dataclass
class InMemory:
    content: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    def read_at(self, offset: int, length: int) -> bytes:
        return self.content[offset : offset + length]


@given(
    content=st.lists(st.sampled_from([b"\n", b"a", b"bc", b"\r\n"]), max_size=30).map(b"".join),
    count=st.integers(0, 12),
    block_bytes=st.integers(1, 9),
)
def test_head_and_tail_count_lines_wherever_blocks_end(
    content: bytes, count: int, block_bytes: int
) -> None:
    lines = io.BytesIO(content).readlines()
    reader = InMemory(content)
    first = b"".join(first_lines(reader, count, block_bytes=block_bytes))
    last = b"".join(last_lines(reader, count, block_bytes=block_bytes))
    assert first == b"".join(lines[:count])
    assert last == b"".join(lines[len(lines) - min(count, len(lines)) :])


# -- through processes ----------------------------------------------------------------------------


def test_a_local_tree_passes_over_pipes_which_might_never_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert [below for _, below in local_tree(tmp_path)] == ["dangling", "file"]


def test_a_local_directory_that_cannot_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "file").write_bytes(b"1")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="closed"):
        list(local_tree(tmp_path))


def test_a_link_that_leads_back_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "tree" / "below").mkdir(parents=True)
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "file").write_bytes(b"1")
    (tmp_path / "tree" / "beside").symlink_to(tmp_path / "beside")
    assert [below for _, below in local_tree(tmp_path / "tree")] == ["below", "beside/file"]
    (tmp_path / "tree" / "below" / "back").symlink_to(tmp_path / "tree")
    with pytest.raises(OSError, match=r"a link to a directory above it.*below/back"):
        list(local_tree(tmp_path / "tree"))


@dataclass
class Endless:
    """Line feeds are far away; what is held of it is counted."""

    size_bytes: int
    held_bytes: int = 0
    most_bytes: int = 0

    def read_at(self, offset: int, length: int) -> bytes:
        return Piece(self, min(length, self.size_bytes - offset))


class Piece(bytes):
    def __new__(cls, source: Endless, length: int) -> Self:
        self = super().__new__(cls, length)
        self.source = source
        source.held_bytes += length
        source.most_bytes = max(source.most_bytes, source.held_bytes)
        return self

    def __del__(self) -> None:
        self.source.held_bytes -= len(self)


def test_the_last_lines_need_no_memory_however_long_they_are() -> None:
    reader = Endless(10_000)
    assert sum(map(len, last_lines(reader, 3, block_bytes=100))) == 10_000
    assert reader.most_bytes <= 300


@pytest.mark.e2e
def test_append_adds_stdin_as_one_record_or_line_by_line(run: Run, root: str) -> None:
    path = f"{root}/log"
    assert run("append", path, stdin=b"whole\nrecord\n").stdout == b""
    told = json.loads(run("append", "--lines", "--json", path, stdin=b"a\nbc\nno end").stdout)
    assert told == {"path": path, "records": 3, "bytes": 11, "offsets": [13, 15, 18]}
    assert run("cat", path).stdout == b"whole\nrecord\na\nbc\nno end"
    too_long = run("append", path, stdin=bytes(17 * 1024), code=2)
    assert b"a quarter of a chunk" in too_long.stderr


@pytest.mark.e2e
def test_put_cat_head_tail_get(run: Run, root: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(LINES)
    assert run("put", "log", f"{root}/").stdout == b""
    assert run("cat", f"{root}/log").stdout == LINES
    assert run("cat", f"{root}/l*", f"minigfs://{root}/log").stdout == LINES * 2
    assert run("head", "-n", "2", f"{root}/log").stdout == b"line 0\nline 1\n"
    assert run("head", "-c", "3", f"{root}/log").stdout == b"lin"
    assert run("tail", "-n", "2", f"{root}/log").stdout == b"line 29998\nline 29999\n"
    assert run("tail", "-c", "1KiB", f"{root}/log").stdout == LINES[-1024:]
    run("get", f"{root}/log", "back")
    assert (tmp_path / "back").read_bytes() == LINES
    assert run("get", f"{root}/log", "-").stdout == LINES


@pytest.mark.e2e
def test_trees_travel_whole_in_both_directions(run: Run, root: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("a", "b/c", "b/d/e"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(name.encode())
    (tree / "empty").mkdir()
    run("put", "tree", f"{root}/copy")
    run("put", "tree", f"{root}/copy")  # now it is there: into it, as cp -r does
    assert run("ls", f"{root}/copy").stdout.decode().split() == [
        f"{root}/copy/{name}" for name in ("a", "b/", "empty/", "tree/")
    ]
    run("get", f"{root}/copy/tree", "back")
    found = {
        path.relative_to(tmp_path / "back").as_posix(): path.is_file() and path.read_bytes()
        for path in (tmp_path / "back").rglob("*")
    }
    assert found == {
        "a": b"a",
        "b": False,
        "b/c": b"b/c",
        "b/d": False,
        "b/d/e": b"b/d/e",
        "empty": False,
    }


@pytest.mark.e2e
def test_the_tree_is_changed_and_shown(run: Run, root: str) -> None:
    run("mkdir", "-p", f"{root}/x/y", f"{root}/z")
    run("put", "-", f"{root}/x/f", stdin=b"12345")
    run("mv", f"{root}/x", f"{root}/z")
    run("mv", f"{root}/z/x/f", f"{root}/z/x/g")
    assert run("ls", root, f"{root}/z/x").stdout.decode().split() == [
        f"{root}/z/",
        f"{root}/z/x/g",
        f"{root}/z/x/y/",
    ]
    assert run("ls", "-l", f"{root}/z/x/g").stdout.split()[:2] == [b"5", b"3"]
    assert run("du", root).stdout == f"5\t{root}\n".encode()
    (usage,) = json.loads(run("du", "--json", root).stdout)
    assert (usage["bytes"], usage["files"]) == (5, 1)
    (status,) = json.loads(run("stat", "--json", f"{root}/z/x/g").stdout)
    assert (status["path"], status["size_bytes"], status["kind"]) == (f"{root}/z/x/g", 5, "file")
    assert b"size         5 (5 B)" in run("stat", f"{root}/z/x/g").stdout
    (entry,) = json.loads(run("ls", "--json", f"{root}/z/x/g").stdout)
    assert {**entry, "last_scrubbed_ms": status["last_scrubbed_ms"]} == status
    run("rm", f"{root}/z/x/*g")
    run("rm", "-r", f"{root}/z")
    run("rm", "-f", f"{root}/none")
    assert run("ls", root).stdout == b""


@pytest.mark.e2e
def test_a_tree_is_drawn_and_told_to_programs(run: Run, root: str) -> None:
    run("put", "-", f"{root}/d/e/f", stdin=b"12345")
    (top,) = json.loads(run("tree", "--json", root).stdout)
    (d,) = top["entries"]
    (e,) = d["entries"]
    (f,) = e["entries"]
    assert [one["path"] for one in (top, d, e, f)] == [
        root, f"{root}/d", f"{root}/d/e", f"{root}/d/e/f"
    ]  # fmt: skip
    assert f["size_bytes"] == 5
    assert "entries" not in f
    (top,) = json.loads(run("tree", "--json", "--depth", "1", root).stdout)
    assert "entries" not in top["entries"][0]


@pytest.mark.e2e
def test_it_is_told_when_each_replica_was_last_read_whole(run: Run, root: str) -> None:
    run("put", "-", f"{root}/f", stdin=LINES)
    before_ms = time.time_ns() // 1_000_000
    run("scrub", f"{root}/f")
    located = json.loads(run("locations", "--json", f"{root}/f").stdout)
    times = [r["last_scrubbed_ms"] for chunk in located["chunks"] for r in chunk["replicas"]]
    assert len(times) == 3 * len(located["chunks"])
    assert min(times) >= before_ms
    (status,) = json.loads(run("stat", "--json", f"{root}/f").stdout)
    assert status["last_scrubbed_ms"] == min(times)
    day = time.strftime("%Y-%m-%d", time.localtime(min(times) / 1000)).encode()
    assert day in run("stat", f"{root}/f").stdout.splitlines()[-1]
    assert b"SCRUBBED" in run("locations", f"{root}/f").stdout
    run("rm", f"{root}/f")
    report = json.loads(run("admin", "report", "--json").stdout)
    assert {server["scrub_bound_ms"] for server in report["chunkservers"]} == {7 * 86_400_000}
    assert report["trash"]["files"] >= 1
    assert report["repair"]["waiting"] == 0
    shown = run("admin", "report").stdout
    assert b"every byte is read again within 7 days" in shown
    assert b" removed things (" in shown


@pytest.mark.e2e
def test_copies_come_and_what_was_removed_comes_back(run: Run, root: str) -> None:
    run("put", "-", f"{root}/d/f", stdin=b"12345")
    run("cp", "-r", f"{root}/d", f"{root}/e")
    run("cp", f"{root}/d/f", f"{root}/e/g")
    run("clone", f"{root}/e", f"{root}/exactly")
    assert run("find", root, "--type", "f").stdout.decode().split() == [
        f"{root}/{path}" for path in ("d/f", "e/f", "e/g", "exactly/f", "exactly/g")
    ]
    assert run("find", root, "--name", "g*", "--type", "f", "-l").stdout.split()[0] == b"5"
    assert run("tree", f"{root}/e").stdout.decode().splitlines()[1:] == [
        "├── f  (5 B)",
        "└── g  (5 B)",
    ]
    run("rm", "-r", f"{root}/e")
    listed = json.loads(run("undelete", "--list", root, "--json").stdout)
    assert [(entry["path"], entry["file_count"]) for entry in listed] == [(f"{root}/e", 2)]
    assert f"{root}/e/" in run("undelete").stdout.decode()
    run("undelete", f"{root}/e")
    run("rm", "--now", f"{root}/e/g")
    run("rm", f"{root}/e/f")
    run("undelete", f"{root}/e/f", "--to", f"{root}/back")
    assert run("cat", f"{root}/back", f"{root}/exactly/g").stdout == b"1234512345"
    assert run("undelete", "--list", root).stdout == b""
    run("undelete", f"{root}/e/g", code=1)


@pytest.mark.e2e
def test_policies_are_set_and_shown(run: Run, root: str) -> None:
    run("mkdir", f"{root}/scratch", "--replication", "1", "--retention", "0")
    run("put", "-", f"{root}/scratch/f", stdin=b"12345")
    (status,) = json.loads(run("stat", "--json", f"{root}/scratch/f").stdout)
    assert status["replication"] == 1
    run("rm", f"{root}/scratch/f")
    assert run("undelete", "--list", root).stdout == b""
    run("put", "-", f"{root}/scratch/f", stdin=b"12345")
    run("setrep", "-R", "2", f"{root}/scratch")
    (status,) = json.loads(run("stat", "--json", f"{root}/scratch/f").stdout)
    assert status["replication"] == 2
    shown = run("policy", f"{root}/scratch", "--retention", "inherit").stdout.decode()
    assert [line.split()[-2:] for line in shown.splitlines()] == [
        ["set", "here"],
        ["3d", "inherited"],
    ]
    report = json.loads(run("policy", f"{root}/scratch", "--json").stdout)
    assert (report["replication"], report["own_retention_ms"]) == (2, None)


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("cat", "{root}/none"), 1, "{root}/none"),
        (("cat", "{root}/*.none"), 1, "nothing matches"),
        (("cat", "{root}"), 1, "a directory"),
        (("ls", "{root}/none"), 1, "{root}/none"),
        (("ls", "relative"), 2, "did you mean /relative?"),
        (("put", "no-such-file", "{root}/f"), 1, "no-such-file: no such local file"),
        (("put", "-n", "here", "{root}/file"), 1, "{root}/file"),
        (("put", "here", "here", "{root}/file"), 1, "{root}/file"),
        (("get", "{root}/file", "here/below"), 1, "here"),
        (("rm", "{root}"), 1, "remove it with -r"),
        (("rm", "-r", "/"), 2, "refusing"),
        (("rm", "{root}/none"), 1, "{root}/none"),
        (("mkdir", "{root}"), 1, "{root}"),
        (("mv", "{root}/none", "{root}/f"), 1, "{root}/none"),
        (("head", "-n", "-1", "{root}/file"), 2, "minigfs head --help"),
        (("head", "-c", "many", "{root}/file"), 2, "not a size"),
        (("cat",), 2, "minigfs cat --help"),
        (("cat", "--colour", "/"), 2, "--colour"),
        (("dog",), 2, "No such command 'dog'"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    cluster: ClusterLayout,
    root: str,
    fs: MinigfsFileSystem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.setenv("MINIMR_HOME", str(cluster.home))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").write_bytes(b"")
    fs.touch(f"{root}/file")
    given_arguments = [argument.replace("{root}", root) for argument in arguments]
    ended = run_cli(minigfs, program="minigfs", arguments=given_arguments)
    output, errors = capfd.readouterr()
    (line,) = errors.splitlines()
    assert (ended, output) == (code, "")
    assert line.startswith("minigfs")
    assert message.replace("{root}", root) in line


@pytest.mark.e2e
def test_a_reader_that_goes_away_ends_cat_quietly(
    run: Run, root: str, cluster: ClusterLayout
) -> None:
    run("put", "-", f"{root}/big", stdin=LINES * 10)
    cat = f"{sys.executable} -P -m minigfs cat {root}/big"
    pipe = subprocess.run(
        ["bash", "-c", f"{cat} | head -n 1; exit ${{PIPESTATUS[0]}}"],
        env={**os.environ, "MINIMR_HOME": str(cluster.home)},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (pipe.returncode, pipe.stdout, pipe.stderr) == (141, b"line 0\n", b"")


@pytest.mark.e2e
def test_ctrl_c_ends_with_130_and_publishes_nothing(
    root: str, cluster: ClusterLayout, fs: MinigfsFileSystem
) -> None:
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "minigfs", "put", "-", f"{root}/f"],
        env={**os.environ, "MINIMR_HOME": str(cluster.home)},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as putting:
        assert putting.stdin is not None
        assert putting.stderr is not None
        putting.stdin.write(b"x" * 100_000)
        putting.stdin.flush()
        wait_until_reading(putting.pid)
        putting.send_signal(signal.SIGINT)
        assert putting.wait(10) == 130
        assert putting.stderr.read().strip() == b""
    assert not fs.exists(f"{root}/f")


def wait_until_reading(pid: int) -> None:
    """Until a process has emptied the pipe that is its stdin and waits for more."""
    deadline = time.monotonic() + 10
    while not Path(f"/proc/{pid}/wchan").read_text().endswith("pipe_read"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.e2e
def test_no_cluster_and_a_wrong_token_end_with_3(
    cli: Run, cluster: ClusterLayout, tmp_path: Path
) -> None:
    nobody = cli("ls", "/")
    assert nobody.returncode == 3
    assert b"up" in nobody.stderr
    wrong = tmp_path / "token"
    wrong.write_text("0" * 64)
    wrong.chmod(0o600)
    refused = cli("ls", "--token-file", str(wrong), "/", home=cluster.home)
    assert refused.returncode == 3
    assert b"token" in refused.stderr
    for done in (nobody, refused):
        assert len(done.stderr.decode().splitlines()) == 1


@pytest.mark.e2e
def test_verbose_adds_the_traceback(cli: Run, cluster: ClusterLayout) -> None:
    done = cli("cat", "--verbose", "/none", home=cluster.home)
    assert done.returncode == 1
    assert b"Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith(b"minigfs: /none")
