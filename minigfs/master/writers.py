"""Leases of open writers: soft, so a master's restart gives everybody a full one.

A writer that is silent may be paused, or its process busy; one whose process has ended will never
write again, and its file is in the way. What tells the two apart is the connection on which a
process with open writers keeps a call waiting (``HoldWriters``), or has opened one of them: the
system closes it when the process ends, however it does, and leaves it open as long as the process
exists. So files are given up a minute after their writer was last heard of, and some seconds after
its process's last connection ended, unless it is back by then.
"""

from collections.abc import Iterable

from minigfs.ids import FileId

__all__ = ["GONE_WRITER_MS", "WRITER_LEASE_MS", "WriterLeases"]

WRITER_LEASE_MS = 60_000  # GFS section 3.1 gives leases of 60 s; longer than a master's failover
GONE_WRITER_MS = 5_000  # a living process whose connection broke makes another in less


class WriterLeases:
    """When each temporary file's writer was last heard of; times are of a monotonic clock."""

    def __init__(self) -> None:
        self._heard_ms: dict[FileId, int] = {}
        self._holders: dict[FileId, str] = {}  # the process that writes a file, if it said so
        self._call_counts: dict[str, int] = {}  # of processes: calls that wait, and connections
        self._lost_ms: dict[str, int] = {}  # when the last one of a process was cut off

    def renew(self, file_id: FileId, now_ms: int, holder: str = "") -> None:
        self._heard_ms[file_id] = now_ms
        if holder:
            self._holders[file_id] = holder

    def hold(self, holder: str) -> None:
        """A call of this process begins to wait."""
        self._call_counts[holder] = self._call_counts.get(holder, 0) + 1
        self._lost_ms.pop(holder, None)

    def let_go(self, holder: str, now_ms: int, *, cut_off: bool) -> None:
        """It waits no more: answered, or cut off with its connection."""
        self._call_counts[holder] -= 1
        if not self._call_counts[holder]:
            del self._call_counts[holder]
            if cut_off:
                self._lost_ms[holder] = now_ms

    def expired(self, temporary: Iterable[FileId], now_ms: int) -> tuple[FileId, ...]:
        """Which of the temporary files have lost their writers; a file not met before has not."""
        self._heard_ms = {i: self._heard_ms.get(i, now_ms) for i in sorted(temporary)}
        self._holders = {i: one for i, one in self._holders.items() if i in self._heard_ms}
        writing = set(self._holders.values())
        self._lost_ms = {one: at for one, at in self._lost_ms.items() if one in writing}
        return tuple(
            i
            for i, heard_ms in self._heard_ms.items()
            if now_ms - heard_ms > WRITER_LEASE_MS or self._is_gone(i, heard_ms, now_ms)
        )

    def _is_gone(self, file_id: FileId, heard_ms: int, now_ms: int) -> bool:
        lost_ms = self._lost_ms.get(self._holders.get(file_id, ""))
        return lost_ms is not None and now_ms - max(lost_ms, heard_ms) > GONE_WRITER_MS
