"""Chunkservers that failed a call lately: new chunks are put elsewhere, if that is possible."""

from collections.abc import Collection, Sequence

from minigfs.ids import ChunkserverId
from minigfs.master.placement import Candidate
from minigfs.master.tenure import Tenure
from minigfs.ports import Clock
from minigfs.transport.address import Address

__all__ = ["Suspects"]

SUSPECT_MS = 1_000  # who is silent stays suspect; who speaks may fail again, but not every time


class Suspects:
    """Soft state of one term of leadership."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failed_ms: dict[ChunkserverId, int] = {}

    def add(self, chunkserver_id: ChunkserverId) -> None:
        self._failed_ms[chunkserver_id] = self._clock.monotonic_ms()

    def add_addresses(self, tenure: Tenure, addresses: Collection[Address]) -> None:
        """Those that a client could not reach."""
        if addresses:
            for server in tenure.membership.all_servers():
                if server.last_heartbeat.address in addresses:
                    self.add(server.chunkserver_id)

    def includes(self, tenure: Tenure, chunkserver_id: ChunkserverId) -> bool:
        """Whether it failed a moment ago, or failed and was not heard of since."""
        failed_ms = self._failed_ms.get(chunkserver_id)
        if failed_ms is None:
            return False
        (server,) = tenure.membership.servers([chunkserver_id])
        is_recent = tenure.now_ms - failed_ms <= SUSPECT_MS
        return is_recent or server.last_heard_ms <= failed_ms

    def left_out_of(self, tenure: Tenure, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates that are not suspect; if all are, the one that failed longest ago, which
        is the likeliest to be back."""
        left = [c for c in candidates if not self.includes(tenure, c.chunkserver_id)]
        failed_ms = self._failed_ms
        return left or sorted(candidates, key=lambda c: failed_ms.get(c.chunkserver_id, 0))[:1]
