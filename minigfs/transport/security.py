"""Who may talk to whom: the cluster's token, its name, and TLS for addresses beyond this machine.

The token is a file only its owner may read. It never crosses the wire and never shows in a
message or a ``repr``: peers prove that they know it (``minigfs.transport.handshake``).
"""

import os
import secrets
import ssl
import stat
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from minigfs.errors import InvalidConfig
from minigfs.transport.address import Address, is_loopback

__all__ = [
    "Security",
    "TlsFiles",
    "check_listen_address",
    "client_context",
    "create_token",
    "load_token",
    "server_context",
]

TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files: what this process shows (``certificate``, ``key``) and whom it trusts (``ca``).

    A client needs only ``ca``; a server needs the other two.
    """

    ca: str
    certificate: str | None = None
    key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Security:
    """What both ends of a connection must agree on.

    ``cluster_id`` is compared when both ends name one; ``""`` names none.
    """

    token: bytes = field(repr=False)
    cluster_id: str = ""
    tls: TlsFiles | None = None

    def __post_init__(self) -> None:
        if not self.token:
            raise InvalidConfig("the cluster's token is empty: make a new token file")


def create_token(path: str | os.PathLike[str]) -> bytes:
    """Make a token file (mode 0600) and return the token; ``FileExistsError`` if there is one."""
    token = secrets.token_hex(TOKEN_BYTES).encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(token + b"\n")
        file.flush()
        os.fsync(descriptor)
    return token


def load_token(path: str | os.PathLike[str]) -> bytes:
    """The token in a file. Missing, empty, or open to other users: ``InvalidConfig``."""
    try:
        mode = Path(path).stat().st_mode
        token = Path(path).read_bytes().strip()
    except OSError as error:
        raise InvalidConfig(
            f"cannot read the token file {os.fspath(path)} ({error.strerror}): "
            "start the cluster first, or name its token file"
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidConfig(
            f"the token file {os.fspath(path)} is open to other users: chmod 600 it"
        )
    if not token:
        raise InvalidConfig(f"the token file {os.fspath(path)} is empty: copy the cluster's token")
    return token


def check_listen_address(address: Address, security: Security, insecure: bool) -> None:
    """Refuse to listen beyond this machine without TLS, unless the user insists."""
    if not insecure and security.tls is None and not is_loopback(address):
        raise InvalidConfig(
            f"refusing to listen on {address} without TLS, because others on the network could "
            "read and change what is sent: give certificates, listen on 127.0.0.1, or pass "
            "--insecure"
        )


def _explain(what: str, error: OSError) -> InvalidConfig:
    return InvalidConfig(f"cannot use the TLS files {what}: {error}")


@lru_cache(maxsize=8)
def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Trusts ``files.ca`` only, and checks that the certificate names the address's host."""
    try:
        return ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=files.ca)
    except OSError as error:
        raise _explain(files.ca, error) from error


@lru_cache(maxsize=8)
def server_context(files: TlsFiles) -> ssl.SSLContext:
    if files.certificate is None:
        raise InvalidConfig("a server with TLS needs a certificate and its key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(files.certificate, files.key)
    except OSError as error:
        raise _explain(f"{files.certificate} and {files.key}", error) from error
    context.num_tickets = 0  # an idle connection stays quiet, so that a pool can tell it is alive
    return context
