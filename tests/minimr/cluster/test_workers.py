"""How the process that keeps the workers is set up."""

import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from minigfs.errors import InvalidConfig, StartFailed
from minigfs.transport.security import TlsFiles, create_token
from minimr.backends.ray_actors import WorkerSpec
from minimr.cli import cli
from minimr.cluster import ray_session
from minimr.cluster.ray_session import RaySession
from minimr.cluster.workers import WorkersOptions, check_foreign_ray, start_all


def test_a_ray_that_does_not_start_gets_a_second_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []

    def fails(**_: object) -> list[str]:
        tries.append("try")
        return ["/bin/sh", "-c", "echo the node timed out; exit 1"]

    monkeypatch.setattr(ray_session, "head_command", fails)
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)  # one that a child can have
    token = tmp_path / "token"
    create_token(token)
    options = WorkersOptions(
        directory=tmp_path, listen="127.0.0.1:0", masters=("127.0.0.1:1",), token_file=token,
        cluster_id="c", worker_count=1, hosts=("h",), racks=("r",),
    )  # fmt: skip
    session = RaySession(tmp_path / "ray", token_file=token, cluster_id="c")
    with pytest.raises(StartFailed, match="the node timed out"):
        start_all(session, options)
    assert len(tries) == 2


def test_hosts_racks_and_the_bound_of_memory_reach_every_worker() -> None:
    options = WorkersOptions(
        directory=Path("/d"), listen="127.0.0.1:0", masters=("127.0.0.1:1",),
        token_file=Path("/t"), cluster_id="c", worker_count=3, hosts=("a", "b"), racks=("r", "s"),
        memory_bytes=1 << 20,
    )  # fmt: skip
    specs = options.specs()
    assert [(spec.host, spec.rack) for spec in specs] == [("a", "r"), ("b", "s"), ("a", "r")]
    assert {spec.memory_bytes for spec in specs} == {1 << 20}


@pytest.mark.parametrize(
    ("listen", "advertise", "expected"),
    [
        ("0.0.0.0:0", "box:0", [("0.0.0.0:0", "box:0")] * 2),
        ("0.0.0.0:70", "", [("0.0.0.0:70", ""), ("0.0.0.0:71", "")]),
        ("0.0.0.0:70", "box:90", [("0.0.0.0:70", "box:90"), ("0.0.0.0:71", "box:91")]),
        ("0.0.0.0:70", "box:0", [("0.0.0.0:70", "box:0"), ("0.0.0.0:71", "box:0")]),
    ],
)
def test_each_worker_has_a_port_of_its_own(
    listen: str, advertise: str, expected: list[tuple[str, str]]
) -> None:
    options = WorkersOptions(
        directory=Path("/d"), listen=listen, masters=("127.0.0.1:1",), token_file=Path("/t"),
        cluster_id="c", worker_count=2, hosts=("a",), advertise=advertise,
    )  # fmt: skip
    assert [(spec.listen, spec.advertise) for spec in options.specs()] == expected


def test_an_advertised_address_that_means_nothing_is_refused(tmp_path: Path) -> None:
    create_token(tmp_path / "token")
    done = CliRunner().invoke(
        cli,
        [
            *("serve", "workers", "--dir=w", "--advertise=box", "--cluster-id=c"),
            *(f"--token-file={tmp_path / 'token'}", "--join=127.0.0.1:1"),
        ],
    )
    assert isinstance(done.exception, InvalidConfig)
    assert "'box' is no address: write HOST:PORT" in str(done.exception)


def test_a_ray_that_lets_everybody_in_is_refused_unless_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(InvalidConfig, match="--insecure"):
        check_foreign_ray("10.0.0.1:6379", insecure=False)
    check_foreign_ray("10.0.0.1:6379", insecure=True)
    check_foreign_ray("", insecure=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    check_foreign_ray("10.0.0.1:6379", insecure=False)


def test_tls_reaches_every_worker_and_its_user_code(tmp_path: Path) -> None:
    create_token(tmp_path / "token")
    files = TlsFiles(ca="/tls/ca.pem", certificate="/tls/c.pem", key="/tls/k.pem")
    options = WorkersOptions(
        directory=tmp_path, listen="127.0.0.1:0", masters=("127.0.0.1:1",),
        token_file=tmp_path / "token", cluster_id="c", worker_count=2, hosts=("a",), tls=files,
    )  # fmt: skip
    for spec in options.specs():
        worker = msgspec.json.decode(msgspec.json.encode(spec), type=WorkerSpec).options()
        assert worker.security.tls == files
        assert worker.environment["FSSPEC_MINIGFS_TLS_CA"] == "/tls/ca.pem"


@pytest.mark.parametrize(
    ("given", "complaint"),
    [((), "without TLS"), (("--tls-ca", "ca.pem"), "needs all of --tls-ca")],
)
def test_workers_listen_beyond_this_machine_only_with_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    create_token("token")
    (tmp_path / "ca.pem").touch()
    done = CliRunner().invoke(
        cli,
        [
            *("serve", "workers", "--dir=w", "--listen=0.0.0.0:0", "--cluster-id=c"),
            *("--token-file=token", "--join=127.0.0.1:1", *given),
        ],
    )
    assert isinstance(done.exception, InvalidConfig)
    assert complaint in str(done.exception)
