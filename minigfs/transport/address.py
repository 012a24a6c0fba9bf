"""Where a server listens, as text: ``"127.0.0.1:7001"``, ``"[::1]:7001"`` or ``"unix:/path"``."""

import ipaddress
from dataclasses import dataclass
from typing import TypeAlias

from minigfs.errors import InvalidConfig

__all__ = [
    "UNIX_PATH_BYTES_MAX",
    "Address",
    "TcpAddress",
    "UnixAddress",
    "advertised",
    "is_loopback",
    "parse_address",
]

Address: TypeAlias = str

UNIX_PREFIX = "unix:"
UNIX_PATH_BYTES_MAX = 107  # sockaddr_un of Linux holds 108, the last one a zero
PORT_MAX = 65_535


@dataclass(frozen=True, slots=True)
class TcpAddress:
    host: str
    port: int  # 0: any free port, when listening

    def __str__(self) -> Address:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    path: str

    def __str__(self) -> Address:
        return f"{UNIX_PREFIX}{self.path}"


def parse_address(address: Address) -> TcpAddress | UnixAddress:
    """Take an address apart; one that means nothing raises ``InvalidConfig``."""
    if address.startswith(UNIX_PREFIX):
        path = address.removeprefix(UNIX_PREFIX)
        if not path.startswith("/"):
            raise InvalidConfig(f"{address!r}: a Unix socket needs an absolute path")
        if len(path.encode()) > UNIX_PATH_BYTES_MAX:
            raise InvalidConfig(
                f"{address!r}: the path of a Unix socket has at most {UNIX_PATH_BYTES_MAX} bytes; "
                "choose a shorter directory"
            )
        return UnixAddress(path)
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not (colon and host and port.isascii() and port.isdigit() and int(port) <= PORT_MAX):
        raise InvalidConfig(f"{address!r} is no address: write HOST:PORT or unix:/PATH")
    return TcpAddress(host, int(port))


def advertised(said: Address, bound: Address) -> Address:
    """What others are told of a server that listens at ``bound``: ``said``, with its port if that
    names none (0). If nothing is said, where it listens."""
    if not said:
        return bound
    where, listening = parse_address(said), parse_address(bound)
    if isinstance(where, TcpAddress) and isinstance(listening, TcpAddress) and not where.port:
        return str(TcpAddress(where.host, listening.port))
    return said


def is_loopback(address: Address) -> bool:
    """Whether only processes of this machine can reach the address; names other than
    ``localhost`` are not looked up and count as reachable from outside."""
    match parse_address(address):
        case UnixAddress():
            return True
        case TcpAddress(host="localhost"):
            return True
        case TcpAddress(host=host):
            try:
                return ipaddress.ip_address(host).is_loopback
            except ValueError:
                return False
