"""A client finds its cluster by arguments, environment or home, or says what to do."""

import json
import pickle
from pathlib import Path

import pytest

from minigfs.client.config import ClientConfig
from minigfs.errors import InvalidConfig, NoCluster
from minigfs.transport.security import create_token


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("FSSPEC_MINIGFS_MASTERS", "FSSPEC_MINIGFS_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MINIMR_HOME", str(tmp_path))
    create_token(tmp_path / "token")
    told = {"cluster_id": "c1", "masters": ["127.0.0.1:7000"], "token_file": "token"}
    (tmp_path / "client.json").write_text(json.dumps(told))
    return tmp_path


def test_the_home_of_a_cluster_is_enough(home: Path) -> None:
    config = ClientConfig.discover()
    assert (config.masters, config.cluster_id) == (("127.0.0.1:7000",), "c1")
    assert config.token == (home / "token").read_bytes().strip()


def test_the_environment_goes_before_the_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_token(home / "other")
    monkeypatch.setenv("FSSPEC_MINIGFS_MASTERS", "a:1, b:2")
    monkeypatch.setenv("FSSPEC_MINIGFS_TOKEN_FILE", str(home / "other"))
    config = ClientConfig.discover()
    assert config.masters == ("a:1", "b:2")
    assert config.token == (home / "other").read_bytes().strip()


def test_arguments_go_before_everything(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSSPEC_MINIGFS_MASTERS", "a:1")
    config = ClientConfig.discover(masters=["c:3"], token_file=str(home / "token"), timeout_ms=5)
    assert (config.masters, config.timeout_ms) == (("c:3",), 5)


def test_without_a_cluster_the_error_says_how_to_start_one(home: Path) -> None:
    with pytest.raises(NoCluster, match="minimr up"):
        ClientConfig.discover(home=str(home / "nowhere"))


def test_a_broken_client_file_is_named(home: Path) -> None:
    (home / "client.json").write_text("{")
    with pytest.raises(InvalidConfig, match=r"client\.json"):
        ClientConfig.discover()


def test_the_token_is_never_shown_but_travels_with_a_pickle(home: Path) -> None:
    config = ClientConfig.discover()
    assert config.token.decode() not in repr(config)
    assert pickle.loads(pickle.dumps(config)) == config


def test_the_authority_of_a_cluster_with_tls_is_found_beside_its_token(home: Path) -> None:
    told = json.loads((home / "client.json").read_text()) | {"tls_ca": "ca.pem"}
    (home / "client.json").write_text(json.dumps(told))
    assert ClientConfig.discover().tls_ca == str(home / "ca.pem")
    assert ClientConfig.discover(tls_ca="/other.pem").tls_ca == "/other.pem"
