"""Leases of open writers: soft, so a master's restart gives everybody a full one."""

from collections.abc import Iterable

from minigfs.ids import FileId

__all__ = ["WRITER_LEASE_MS", "WriterLeases"]

WRITER_LEASE_MS = 60_000  # GFS section 3.1 gives leases of 60 s; longer than a master's failover


class WriterLeases:
    """When each temporary file's writer was last heard of; times are of a monotonic clock."""

    def __init__(self) -> None:
        self._heard_ms: dict[FileId, int] = {}

    def renew(self, file_id: FileId, now_ms: int) -> None:
        self._heard_ms[file_id] = now_ms

    def expired(self, temporary: Iterable[FileId], now_ms: int) -> tuple[FileId, ...]:
        """Which of the temporary files have lost their writers; a file not met before has not."""
        self._heard_ms = {i: self._heard_ms.get(i, now_ms) for i in sorted(temporary)}
        return tuple(i for i, at in self._heard_ms.items() if now_ms - at > WRITER_LEASE_MS)
