"""Options that say whom a server trusts and what it shows, of `up` and of `serve` alike."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from minigfs.errors import InvalidConfig
from minigfs.transport.security import Security, TlsFiles, check_listen_address, load_token

__all__ = ["security_from", "tls_options"]

_FILE = click.Path(exists=True, dir_okay=False)


def tls_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name TLS files; the command gets them as ``tls``, None without them."""

    @click.option("--tls-ca", type=_FILE, help="PEM file of the authority that signed the servers.")
    @click.option("--tls-certificate", type=_FILE, help="PEM file of the servers' certificate.")
    @click.option("--tls-key", type=_FILE, help="PEM file of the certificate's key.")
    @functools.wraps(command)
    def with_tls(
        *positional: Any,
        tls_ca: str | None,
        tls_certificate: str | None,
        tls_key: str | None,
        **others: Any,
    ) -> None:
        tls = None
        if tls_ca or tls_certificate or tls_key:
            if not (tls_ca and tls_certificate and tls_key):
                raise InvalidConfig("TLS needs all of --tls-ca, --tls-certificate and --tls-key")
            ca, certificate, key = (
                # Absolute, as servers change their directory; not resolved, as links are replaced.
                str(Path(name).absolute())
                for name in (tls_ca, tls_certificate, tls_key)
            )
            tls = TlsFiles(ca=ca, certificate=certificate, key=key)
        command(*positional, tls=tls, **others)

    return with_tls


def security_from(
    *, listen: str, cluster_id: str, token_file: str, tls: TlsFiles | None, insecure: bool
) -> Security:
    """What a server's options say about trust, checked against where it is to listen."""
    security = Security(load_token(token_file), cluster_id, tls)
    check_listen_address(listen, security, insecure)
    return security
