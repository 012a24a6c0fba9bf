"""Where the cluster is and how to prove that one belongs to it. Finding out makes no connection."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from minigfs.errors import InvalidConfig, NoCluster

if TYPE_CHECKING:
    from minigfs.transport.security import Security

__all__ = ["DEFAULT_TIMEOUT_MS", "ClientConfig", "ClientFile"]

DEFAULT_TIMEOUT_MS = 10_000

_MASTERS_VARIABLE = "FSSPEC_MINIGFS_MASTERS"
_TOKEN_FILE_VARIABLE = "FSSPEC_MINIGFS_TOKEN_FILE"
_TLS_CA_VARIABLE = "FSSPEC_MINIGFS_TLS_CA"
_HOME_VARIABLE = "MINIMR_HOME"
_DEFAULT_HOME = "~/.minimr"
_CLIENT_FILE = "client.json"


class ClientFile(msgspec.Struct, frozen=True, kw_only=True):
    """``client.json`` in the home of a cluster: what its clients must know."""

    cluster_id: str
    masters: tuple[str, ...]
    token_file: str  # absolute, or relative to the folder of client.json
    tls_ca: str = ""  # likewise; of a cluster whose servers use TLS


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """Everything a client needs; hashable, so that clients of one cluster share their sockets."""

    masters: tuple[str, ...]
    token: bytes = field(repr=False)
    cluster_id: str = ""  # "" accepts any cluster that knows the token
    timeout_ms: int = DEFAULT_TIMEOUT_MS  # after this much waiting a call gives up
    tls_ca: str = ""  # whom to trust; "" speaks without TLS

    def security(self) -> "Security":
        """What every connection to the cluster is made with."""
        from minigfs.transport.security import Security, TlsFiles

        tls = TlsFiles(ca=self.tls_ca) if self.tls_ca else None
        return Security(self.token, self.cluster_id, tls)

    @classmethod
    def discover(
        cls,
        *,
        masters: str | tuple[str, ...] | list[str] | None = None,
        token_file: str | None = None,
        home: str | None = None,
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
        tls_ca: str | None = None,
    ) -> Self:
        """Arguments first, then ``FSSPEC_MINIGFS_*``, then ``client.json`` in the cluster's home.

        The home is ``home``, else ``$MINIMR_HOME``, else ``~/.minimr``. ``masters`` may be one
        string with commas. Raises ``NoCluster`` that says what to do.
        """
        masters = _split_masters(masters or os.environ.get(_MASTERS_VARIABLE, ""))
        token_file = token_file or os.environ.get(_TOKEN_FILE_VARIABLE)
        tls_ca = tls_ca or os.environ.get(_TLS_CA_VARIABLE) or ""
        if masters and token_file:
            return cls(
                masters=masters,
                token=_read_token(Path(token_file)),
                timeout_ms=timeout_ms,
                tls_ca=tls_ca,
            )
        folder = Path(home or os.environ.get(_HOME_VARIABLE) or _DEFAULT_HOME).expanduser()
        known = _read_client_file(folder / _CLIENT_FILE)
        return cls(
            masters=masters or known.masters,
            token=_read_token(Path(token_file) if token_file else folder / known.token_file),
            cluster_id="" if masters else known.cluster_id,
            timeout_ms=timeout_ms,
            tls_ca=tls_ca or (str(folder / known.tls_ca) if known.tls_ca else ""),
        )


def _split_masters(masters: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    if isinstance(masters, str):
        masters = masters.split(",")
    return tuple(address.strip() for address in masters if address.strip())


def _read_client_file(path: Path) -> ClientFile:
    try:
        return msgspec.json.decode(path.read_bytes(), type=ClientFile)
    except FileNotFoundError:
        raise NoCluster(
            f"no cluster: {path} does not exist. Start one with `minimr up` (or `minigfs up`),"
            f" set {_HOME_VARIABLE} to the home of a running one, or name its masters and token"
            f" file ({_MASTERS_VARIABLE}, {_TOKEN_FILE_VARIABLE})"
        ) from None
    except (msgspec.DecodeError, OSError) as error:
        raise InvalidConfig(f"cannot read {path}: {error}") from error


def _read_token(path: Path) -> bytes:
    from minigfs.transport.security import load_token

    return load_token(path.expanduser())
