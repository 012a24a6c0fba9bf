"""A cluster with TLS: every process of it speaks TLS, to every other and to its users."""

import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from minigfs.client.client import MinigfsClient
from minigfs.client.config import ClientConfig
from minigfs.errors import MinigfsError

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

TEXT = b"the quick brown fox jumps over the lazy dog and the end\n" * 20_000


class Cluster:
    def __init__(self, directory: Path) -> None:
        self.home = directory / "home"
        self.ca = directory / "ca.pem"
        server = directory / "server.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca)
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(server)
        self.tls = [f"--tls-ca={self.ca}", f"--tls-certificate={server}", f"--tls-key={server}"]

    def run(self, *arguments: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [sys.executable, "-P", "-m", "minimr", *arguments],
            env={**os.environ, "MINIMR_HOME": str(self.home)},
            input=stdin,
            capture_output=True,
            timeout=120,
            check=False,
        )

    def ok(self, *arguments: str, stdin: bytes = b"") -> bytes:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("tls"))
    try:
        shape = ("--chunkservers=2", "--workers=2", "--hosts=2", "--chunk-size=256KiB")
        cluster.ok("up", *shape, *cluster.tls)
        yield cluster
    finally:
        cluster.run("down")


def test_jobs_files_and_checks_work(cluster: Cluster) -> None:
    cluster.ok("fs", "put", "-", "/in.txt", stdin=TEXT)
    # Two hosts: reduces fetch over the segment servers' sockets, not from the disk beside them.
    cluster.ok(
        *("run", "word-count", "--input", "minigfs:///in.txt", "--output", "minigfs:///out"),
        *("--split-size", "256KiB", "--reducers", "3", "--backend", "ray"),
    )
    counts = dict(line.split(b"\t") for line in cluster.ok("fs", "cat", "/out/part-*").splitlines())
    assert counts[b"the"] == b"60000"
    assert len(counts) == len(set(TEXT.split()))
    cluster.ok("verify", "minigfs:///out")
    cluster.ok("fs", "fsck", "/")
    job_id = json.loads(cluster.ok("jobs", "list", "--json"))[0]["id"]
    cluster.ok("jobs", "logs", job_id)
    cluster.ok("admin", "masters", "list")


def test_user_code_in_a_worker_reaches_the_file_system(cluster: Cluster, tmp_path: Path) -> None:
    job = tmp_path / "reader.py"
    job.write_text(
        "import fsspec, minimr\n"
        "def look(line):\n"
        "    with fsspec.open('minigfs:///known', 'rb') as file:\n"
        "        yield file.read(), 1\n"
        "job = minimr.Job('reader', map=look, reduce=minimr.agg.sum)\n"
    )
    cluster.ok("fs", "put", "-", "/known", stdin=b"known")
    cluster.ok("fs", "put", "-", "/lines", stdin=b"1\n2\n")
    cluster.ok("run", f"{job}:job", "--input", "minigfs:///lines", "--output", "minigfs:///read")
    assert cluster.ok("fs", "cat", "/read/part-*") == b"known\t2\n"


def test_nothing_of_ours_listens_without_tls(cluster: Cluster) -> None:
    """Ray's own ports are Ray's: they have its token."""
    status = json.loads(cluster.ok("status", "--json"))
    assert status["health"]["word"] == "OK"
    addresses = {server["address"] for server in (*status["masters"], *status["chunkservers"])}
    for worker in status["workers"]:
        addresses.add((Path(worker["dir"]) / "segment_address").read_text(encoding="ascii"))
    assert len(addresses) == 3 + 2 + 2
    trust = ssl.create_default_context(cafile=str(cluster.ca))
    for address in addresses:
        host, port = address.rsplit(":", 1)
        with (
            socket.create_connection((host, int(port)), 10) as plain,
            trust.wrap_socket(plain, server_hostname=host) as secure,
        ):
            assert secure.version() is not None


def test_who_does_not_speak_tls_is_refused(cluster: Cluster) -> None:
    config = ClientConfig.discover(home=str(cluster.home), timeout_ms=2_000)
    MinigfsClient(config).stat("/")
    plain = ClientConfig(
        masters=config.masters, token=config.token, cluster_id=config.cluster_id, timeout_ms=2_000
    )
    with pytest.raises(MinigfsError):
        MinigfsClient(plain).stat("/")


def test_a_restart_keeps_to_tls(cluster: Cluster) -> None:
    cluster.ok("down")
    cluster.ok("up")
    assert b"OK" in cluster.ok("status")
    refused = cluster.run("up", cluster.tls[0], cluster.tls[1], f"--tls-key={cluster.ca}")
    assert refused.returncode == 2
    assert b"stop it first" in refused.stderr
