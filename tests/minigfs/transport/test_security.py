"""Tokens, addresses and the handshake, without sockets."""

from pathlib import Path

import pytest

from minigfs.errors import AuthenticationFailed, InvalidConfig, ProtocolError
from minigfs.transport.address import (
    TcpAddress,
    UnixAddress,
    advertised,
    is_loopback,
    parse_address,
)
from minigfs.transport.handshake import Challenge, ClientHandshake, Hello, Proof, ServerHandshake
from minigfs.transport.security import (
    Security,
    TlsFiles,
    check_listen_address,
    create_token,
    load_token,
)

TOKEN = b"0123456789abcdef"
ONE, TWO = b"\1" * 32, b"\2" * 32


def shake_hands(client: Security, server: Security) -> None:
    ours, theirs = ClientHandshake(client, ONE), ServerHandshake(server, TWO)
    hello = ours.hello()
    theirs.verify(hello, ours.answer(theirs.challenge(hello)))


def test_both_ends_accept_the_same_token() -> None:
    shake_hands(Security(TOKEN, "c"), Security(TOKEN, "c"))


@pytest.mark.parametrize(("client", "server"), [("c", ""), ("", "c"), ("", "")])
def test_a_cluster_id_is_checked_only_when_both_name_one(client: str, server: str) -> None:
    shake_hands(Security(TOKEN, client), Security(TOKEN, server))


def test_another_cluster_is_refused_by_name() -> None:
    with pytest.raises(AuthenticationFailed, match=r"'ours'.*'theirs'"):
        shake_hands(Security(TOKEN, "ours"), Security(TOKEN, "theirs"))


def test_the_client_refuses_a_server_that_does_not_know_the_token() -> None:
    ours = ClientHandshake(Security(TOKEN), ONE)
    challenge = ServerHandshake(Security(b"other"), TWO).challenge(ours.hello())
    with pytest.raises(AuthenticationFailed, match="token file"):
        ours.answer(challenge)


def test_the_server_refuses_a_client_that_does_not_know_the_token() -> None:
    theirs = ServerHandshake(Security(TOKEN), TWO)
    hello = Hello(version=1, nonce=ONE, cluster_id="")
    theirs.challenge(hello)
    with pytest.raises(AuthenticationFailed, match="wrong token"):
        theirs.verify(hello, Proof(proof=bytes(32)))


def test_a_proof_sent_back_proves_nothing() -> None:
    theirs = ServerHandshake(Security(TOKEN), TWO)
    hello = Hello(version=1, nonce=TWO, cluster_id="")
    challenge = theirs.challenge(hello)
    with pytest.raises(AuthenticationFailed):
        theirs.verify(hello, Proof(proof=challenge.proof))


def test_a_proof_recorded_before_proves_nothing() -> None:
    ours, before = ClientHandshake(Security(TOKEN), ONE), ServerHandshake(Security(TOKEN), TWO)
    proof = ours.answer(before.challenge(ours.hello()))
    now = ServerHandshake(Security(TOKEN), b"\3" * 32)
    now.challenge(ours.hello())
    with pytest.raises(AuthenticationFailed):
        now.verify(ours.hello(), proof)


def test_short_nonces_and_other_versions_are_refused() -> None:
    theirs = ServerHandshake(Security(TOKEN), TWO)
    with pytest.raises(ProtocolError, match="32 bytes"):
        theirs.challenge(Hello(version=1, nonce=b"", cluster_id=""))
    with pytest.raises(ProtocolError, match="version 2"):
        theirs.challenge(Hello(version=2, nonce=ONE, cluster_id=""))
    with pytest.raises(ProtocolError):
        ClientHandshake(Security(TOKEN), ONE).answer(Challenge(nonce=b"", proof=b"", cluster_id=""))


def test_a_token_file_is_its_owners_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = create_token(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(token) == 64
    assert load_token(path) == token
    with pytest.raises(FileExistsError):
        create_token(path)


def test_two_tokens_differ(tmp_path: Path) -> None:
    assert create_token(tmp_path / "a") != create_token(tmp_path / "b")


def test_a_token_file_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    create_token(path)
    path.chmod(0o644)
    with pytest.raises(InvalidConfig, match="chmod 600"):
        load_token(path)


def test_a_missing_or_empty_token_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="no-token"):
        load_token(tmp_path / "no-token")
    (tmp_path / "empty").touch(mode=0o600)
    with pytest.raises(InvalidConfig, match="empty"):
        load_token(tmp_path / "empty")
    with pytest.raises(InvalidConfig):
        Security(b"")


def test_no_repr_shows_the_token() -> None:
    assert "0123456789abcdef" not in repr(Security(TOKEN))
    assert "0123456789abcdef" not in repr(ClientHandshake(Security(TOKEN), ONE))


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("127.0.0.1:7001", TcpAddress("127.0.0.1", 7001)),
        ("localhost:0", TcpAddress("localhost", 0)),
        ("[::1]:80", TcpAddress("::1", 80)),
        ("unix:/run/x", UnixAddress("/run/x")),
    ],
)
def test_addresses_read_and_write_the_same(text: str, parsed: TcpAddress | UnixAddress) -> None:
    assert parse_address(text) == parsed
    assert str(parsed) == text


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":7001", "host:x", "host:65536", "unix:x", "unix:/" + "x" * 200]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig):
        parse_address(text)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("", "127.0.0.1:7001"),
        ("box:80", "box:80"),
        ("box:0", "box:7001"),
        ("[fe80::1]:0", "[fe80::1]:7001"),
    ],
)
def test_others_are_told_an_address_with_a_port(said: str, told: str) -> None:
    assert advertised(said, "127.0.0.1:7001") == told


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.8.8.8:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/x", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("192.168.0.1:1", False),
        ("example.org:1", False),
    ],
)
def test_only_loopback_needs_no_tls(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback
    tls = TlsFiles(ca="ca", certificate="c", key="k")
    check_listen_address(address, Security(TOKEN, tls=tls), insecure=False)
    check_listen_address(address, Security(TOKEN), insecure=True)
    if loopback:
        check_listen_address(address, Security(TOKEN), insecure=False)
    else:
        with pytest.raises(InvalidConfig, match="--insecure"):
            check_listen_address(address, Security(TOKEN), insecure=False)
