"""What a master process is told at its start."""

from dataclasses import dataclass, field
from pathlib import Path

from minigfs.config import FileSystemConfig
from minigfs.master.copy_book import RepairLimits
from minigfs.transport.address import Address
from minigfs.transport.security import Security

__all__ = ["MasterOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterOptions:
    """``advertise`` is the address that others are told; without it, the one bound.

    An empty directory becomes a group of one; with ``join``, a new member of the group that these
    masters belong to; with ``founded`` it is refused, since it held a member that is lost.
    """

    directory: Path
    listen: Address
    security: Security
    config: FileSystemConfig
    advertise: Address | None = None
    join: tuple[Address, ...] = ()
    founded: bool = False
    metrics: Address = ""  # where to serve figures for Prometheus; "" for nowhere
    repair: RepairLimits = field(default_factory=RepairLimits)
    insecure: bool = False  # listen beyond loopback without TLS
