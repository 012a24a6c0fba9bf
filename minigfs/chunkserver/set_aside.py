"""What is kept for a person to look at: files that a start could not make sense of, and replicas
of versions, or chunks, that the masters say they never gave.

::

    chunks/<handle>.chunk  -- set aside -->  quarantine/<handle>.version-<v>.<milliseconds>.chunk

A version is logged before a server hears of it, so such a replica comes from another cluster's
disk, or the masters have lost a part of their log: then it may be all that is left of somebody's
bytes. It is neither served nor deleted, and the masters are told of it until a person has looked
and taken the file away. Told by the names, so a restart knows.
"""

import itertools
import logging
import re
import threading

from minigfs.ids import ChunkHandle, ChunkVersion
from minigfs.master.heartbeat_messages import AheadReplica
from minigfs.ports import Clock, Disk

__all__ = ["QUARANTINE", "SetAside"]

logger = logging.getLogger(__name__)

QUARANTINE = "quarantine"
_NAME = re.compile(r"([0-9a-f]{16})\.version-(\d{1,19})\.\d{1,15}\.chunk")
_REPORTED_MAX = 100  # a person needs a few to see what has happened


class SetAside:
    """Thread-safe. Call ``look`` before anything else, and now and then."""

    def __init__(self, disk: Disk, clock: Clock) -> None:
        self._disk = disk
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: tuple[AheadReplica, ...] = ()

    def look(self) -> None:
        """See what is there; a person may have taken some of it away."""
        with self._lock:
            found = (_NAME.fullmatch(name) for name in self._disk.list(QUARANTINE))
            self._kept = tuple(
                AheadReplica(ChunkHandle(int(match[1], 16)), ChunkVersion(int(match[2])))
                for match in found
                if match
            )

    def put(self, path: str, replica: AheadReplica) -> None:
        """Take in the file at ``path``."""
        name = f"{replica.handle:016x}.version-{replica.version}.{self._clock.now_ms()}.chunk"
        self._disk.rename(path, f"{QUARANTINE}/{name}")
        self._disk.sync_dir(QUARANTINE)
        logger.error("chunk %x has version %d, which the masters never gave: it is kept as %s/%s",
                     replica.handle, replica.version, QUARANTINE, name)  # fmt: skip
        self.look()

    def keep(self, path: str, name: str, reason: OSError) -> None:
        """Take in a file of which nobody knows what it is, as ``name`` if that is still free."""
        stem, dot, suffix = name.partition(".")
        names = (f"{stem}.{number}{dot}{suffix}" for number in itertools.count(2))
        kept = name
        while self._disk.exists(f"{QUARANTINE}/{kept}"):
            kept = next(names)
        logger.warning("quarantine %s as %s: %s", path, kept, reason)
        self._disk.rename(path, f"{QUARANTINE}/{kept}")
        self._disk.sync_dir(QUARANTINE)

    @property
    def count(self) -> int:
        return len(self._kept)

    def reports(self) -> tuple[AheadReplica, ...]:
        return self._kept[:_REPORTED_MAX]
