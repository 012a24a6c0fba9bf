"""The verbs on files, run in this process beside a whole cluster in it: no start-up to wait for."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from minigfs.chunkserver.process import Chunkserver
from minigfs.cli import minigfs
from minigfs.cli.connect import ClusterChoice
from minigfs.client.client import MinigfsClient
from minigfs.terminal import run_cli
from tests.cluster_in_process import with_cluster

Use = Callable[[MinigfsClient], None]


@pytest.fixture
def beside_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Use], None]:
    """Run something for which every command connects to one cluster, which it is given too."""

    def run(use: Use) -> None:
        def use_client(client: MinigfsClient, _chunkservers: list[Chunkserver]) -> None:
            monkeypatch.setattr(ClusterChoice, "connect", lambda _: client)
            use(client)

        (tmp_path / "servers").mkdir()
        with_cluster(tmp_path / "servers", use_client)

    return run


def run(*arguments: str | Path) -> int:
    return run_cli(minigfs, program="minigfs", arguments=[str(one) for one in arguments])


def test_a_file_with_the_longest_name_is_copied_to_this_machine(
    beside_cluster: Callable[[Use], None], tmp_path: Path
) -> None:
    def use(client: MinigfsClient) -> None:
        client.write_file(f"/{'n' * 255}", b"content")
        assert run("get", f"/{'n' * 255}", f"{tmp_path}/") == 0
        assert (tmp_path / ("n" * 255)).read_bytes() == b"content"

    beside_cluster(use)


def test_a_file_is_fetched_once_and_never_over_one_that_is_to_stay(
    beside_cluster: Callable[[Use], None], tmp_path: Path
) -> None:
    def use(client: MinigfsClient) -> None:
        client.write_file("/f", b"content")
        assert run("get", "-n", "/f", tmp_path / "f") == 0
        (tmp_path / "f").write_bytes(b"mine")
        assert run("get", "-n", "/f", tmp_path / "f") == 1
        assert (tmp_path / "f").read_bytes() == b"mine"

    beside_cluster(use)


def test_nothing_takes_the_place_of_what_the_same_command_has_put_there(
    beside_cluster: Callable[[Use], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def use(client: MinigfsClient) -> None:
        for folder in ("a", "b", "into"):
            client.make_directory(f"/{folder}")
            (tmp_path / folder).mkdir()
        for folder in ("a", "b"):
            client.write_file(f"/{folder}/f", folder.encode())
            (tmp_path / folder / "f").write_text(folder)
        for verb in ("mv", "cp"):
            assert run(verb, "/a/f", "/b/f", "/into") == 1
            assert "/into/f: two of the things" in capsys.readouterr().err
        assert run("put", tmp_path / "a" / "f", tmp_path / "b" / "f", "/into/") == 1
        assert run("get", "/a/f", "/b/f", tmp_path / "into") == 1
        assert [one.path for one in client.find("/")] == [
            *("/a", "/a/f", "/b", "/b/f", "/into"),
        ]
        assert not list((tmp_path / "into").iterdir())

    beside_cluster(use)


def test_a_pattern_may_match_a_directory_and_what_lies_in_it(
    beside_cluster: Callable[[Use], None],
) -> None:
    def use(client: MinigfsClient) -> None:
        for path in ("/d/a", "/d/sub/b", "/d/sub/deep/c", "/d/sub-2"):
            client.write_file(path, b"")
        assert run("rm", "-r", "/d/**") == 0
        assert [one.path for one in client.find("/")] == ["/d"]

    beside_cluster(use)


def test_a_file_that_another_removes_meanwhile_is_no_error_with_force(
    beside_cluster: Callable[[Use], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def use(client: MinigfsClient) -> None:
        client.write_file("/f", b"")
        status = client.stat("/f")
        client.remove("/f")
        monkeypatch.setattr(client, "stat", lambda _: status)
        assert run("rm", "/f") == 1
        assert run("rm", "-f", "/f") == 0

    beside_cluster(use)


def test_a_link_is_copied_under_its_own_name(
    beside_cluster: Callable[[Use], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def use(client: MinigfsClient) -> None:
        (tmp_path / "here").mkdir()
        (tmp_path / "here" / "log-1").write_bytes(b"content")
        (tmp_path / "latest").symlink_to(tmp_path / "here" / "log-1")
        monkeypatch.chdir(tmp_path / "here")
        for source, path in (("../latest", "/a/latest"), (".", "/b/here/log-1")):
            assert run("put", source, f"{path[:2]}/") == 0
            with client.open_reader(path) as reader:
                assert reader.read_at(0, 10) == b"content"

    beside_cluster(use)


def test_names_that_the_terminal_cannot_show_are_shown_escaped(
    beside_cluster: Callable[[Use], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def use(client: MinigfsClient) -> None:
        client.write_file("/d/\u20ac", b"")
        for arguments in (("ls", "/d"), ("tree",), ("undelete", "--list")):
            shown = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
            monkeypatch.setattr(sys, "stdout", shown)
            assert run(*arguments) == 0
            assert b"\\u20ac" in shown.buffer.getvalue()
            client.remove("/d/\u20ac")
            client.write_file("/d/\u20ac", b"")

    beside_cluster(use)


def test_a_digit_that_is_no_number_is_no_number_of_replicas(
    beside_cluster: Callable[[Use], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def use(_client: MinigfsClient) -> None:
        assert run("policy", "/", "--replication", "\u00b2") == 2
        assert "is no number of replicas" in capsys.readouterr().err

    beside_cluster(use)


def test_a_tree_is_drawn_however_deep_it_is(
    beside_cluster: Callable[[Use], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def use(client: MinigfsClient) -> None:
        client.write_file("/t/a/b/c", b"")
        client.write_file("/t/a/d", b"")
        client.write_file("/t/e", b"")
        assert run("tree", "/t") == 0
        whole = ["/t/", "├── a/", "│   ├── b/", "│   │   └── c  (0 B)", "│   └── d  (0 B)"]
        assert capsys.readouterr().out.splitlines() == [*whole, "└── e  (0 B)"]
        assert run("tree", "--depth", "2", "/t") == 0
        assert capsys.readouterr().out.splitlines() == [*whole[:3], whole[4], "└── e  (0 B)"]
        client.make_directory("/deep" + "/d" * 1_500, parents=True)
        assert run("tree", "/deep") == 0
        assert len(capsys.readouterr().out.splitlines()) == 1_501

    beside_cluster(use)


def test_an_append_that_fails_halfway_says_how_far_it_came(
    beside_cluster: Callable[[Use], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def use(client: MinigfsClient) -> None:
        lines = b"1\n2\n" + b"x" * 20_000
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
        assert run("append", "--lines", "/f") == 2
        assert "not 16385; 2 records before it went into the file" in capsys.readouterr().err
        assert client.stat("/f").size_bytes == 4

    beside_cluster(use)
