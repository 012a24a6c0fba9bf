"""One word for the state of the data, with reasons.

OK            every chunk has the replicas its file asks for, and a new one would get them
DEGRADED      some chunk has fewer, or a new one would; or servers are still to report, or full
DATA_AT_RISK  some chunk has a single live replica and should have more
LOST          some chunk of a published file has none, and every server had time to report
"""

from collections.abc import Sequence
from dataclasses import dataclass

from minigfs.master.membership import Membership
from minigfs.master.state import Chunk

__all__ = ["HealthTally"]


@dataclass(slots=True)
class HealthTally:
    """Counts chunk by chunk, so that a long count can be made in slices."""

    few_count: int = 0  # chunks with fewer replicas than asked for, but at least two
    single_count: int = 0
    missing_count: int = 0
    missing_bytes: int = 0  # of replicas that can be made from others

    def add(self, chunk: Chunk, membership: Membership, now_ms: int) -> None:
        """Count a chunk; those of files still being written do not matter."""
        if chunk.length_bytes == 0:
            return
        present_count = membership.present_count(chunk, now_ms)
        if present_count >= chunk.replication:
            return
        if present_count == 0:
            self.missing_count += 1
            return
        self.missing_bytes += (chunk.replication - present_count) * chunk.length_bytes
        if present_count == 1:
            self.single_count += 1
        else:
            self.few_count += 1

    def verdict(
        self,
        *,
        alive_count: int,
        replication: int,
        may_still_report: bool,
        full: Sequence[str] = (),
    ) -> tuple[str, tuple[str, ...]]:
        """The word and its reasons, the worst first; ``full`` are servers without space."""
        reasons: list[str] = []
        word = "OK"
        if self.missing_count and not may_still_report:
            word = "LOST"
            reasons.append(f"{self.missing_count} chunks have no live replica")
        if self.single_count:
            word = "DATA_AT_RISK" if word == "OK" else word
            reasons.append(f"{self.single_count} chunks have a single live replica")
        if self.few_count:
            reasons.append(f"{self.few_count} chunks have fewer replicas than their files ask for")
        if alive_count < replication:
            reasons.append(f"{alive_count} chunkservers are alive, new files ask for {replication}")
        reasons += [f"chunkserver {name} has a full disk: it takes no data" for name in full]
        if may_still_report and (self.missing_count or alive_count < replication):
            reasons.append("waiting for chunkservers")
        return ("DEGRADED" if word == "OK" and reasons else word), tuple(reasons)
