"""Whoever speaks to a cluster with TLS speaks TLS: files, administration, checks, jobs."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import trustme

from minigfs.client.admin import MasterAdmin
from minigfs.client.checking import ReplicaChecker
from minigfs.client.chunkserver_admin import ChunkserverAdmin
from minigfs.client.client import MinigfsClient
from minigfs.client.config import ClientConfig
from minigfs.errors import FileMissing
from minigfs.master.examine_messages import Examine
from minigfs.master.messages import GetClusterReport, Stat
from minigfs.replication.admin import ListMasters
from minigfs.transport.messages import Message
from minigfs.transport.security import Security, TlsFiles
from tests.served import served

TOKEN = b"the cluster's token"


@pytest.fixture
def config(tmp_path: Path) -> Iterator[ClientConfig]:
    """Of a master with TLS that finds nothing, whatever it is asked."""
    authority = trustme.CA()
    both = str(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(both)
    ca = str(tmp_path / "ca.pem")

    async def find_nothing(_request: Message) -> NoReturn:
        raise FileMissing("the master was reached")

    handlers = dict.fromkeys((Examine, GetClusterReport, ListMasters, Stat), find_nothing)
    tls = TlsFiles(ca=ca, certificate=both, key=both)
    with served(handlers, Security(TOKEN, "c1", tls)) as address:
        yield ClientConfig(
            masters=(address,), token=TOKEN, cluster_id="c1", timeout_ms=3_000, tls_ca=ca
        )


def check(config: ClientConfig) -> None:
    with ReplicaChecker(config) as checker:
        list(checker.check("/"))


def administer_masters(config: ClientConfig) -> None:
    admin = MasterAdmin(config)
    try:
        admin.list()
    finally:
        admin.close()


def administer_chunkservers(config: ClientConfig) -> None:
    admin = ChunkserverAdmin(config)
    try:
        admin.report()
    finally:
        admin.close()


def look(config: ClientConfig) -> None:
    MinigfsClient(config).stat("/")


@pytest.mark.parametrize("work", [look, check, administer_masters, administer_chunkservers])
def test_a_cluster_with_tls_is_reached(
    config: ClientConfig, work: Callable[[ClientConfig], None]
) -> None:
    with pytest.raises(FileMissing, match="the master was reached"):
        work(config)
