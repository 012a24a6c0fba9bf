"""The limits of one member, and its time. Ticks are calls of ``Member.tick``."""

from dataclasses import dataclass, field

from minigfs.errors import InvalidConfig
from minigfs.replication.snapshot_transfer import TransferLimits

__all__ = ["HostSettings", "MemberSettings"]

_KIB, _MIB = 1 << 10, 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSettings:
    """Members of one group may differ in these."""

    snapshot_every_entries: int = 10_000
    snapshot_every_bytes: int = 64 * _MIB
    snapshot_entry_bytes: int = 1 * _KIB
    """A snapshot this many times larger than ``snapshot_every_entries`` waits for as many more
    entries, ten times as many at most: else a large state would be written all the time."""
    keep_entries: int = 5_000
    """Entries kept behind a snapshot for members that are a little late."""
    keep_entries_max: int = 100_000
    """Entries kept while a member that is being sent an older snapshot needs them; in memory."""
    piece_bytes: int = 256 * _KIB
    """Of a snapshot file, in one message."""
    pieces_in_flight: int = 4
    transfer_resend_ticks: int = 10
    transfer_give_up_ticks: int = 50
    """A transfer without progress for so long has failed; Raft begins another one."""
    reserve_bytes: int = 1 * _MIB
    """Log space that clients may not use when the disk is full: votes and no-ops need it."""
    apply_entries_max: int = 256
    """Entries applied in one ``due``: applying never holds up the loop for long."""
    apply_ms_max: int = 10
    """After so much time no more of them: a late member may have to apply many large ones."""

    @property
    def transfer_limits(self) -> TransferLimits:
        return TransferLimits(
            piece_bytes=self.piece_bytes,
            pieces_in_flight=self.pieces_in_flight,
            resend_ticks=self.transfer_resend_ticks,
            give_up_ticks=self.transfer_give_up_ticks,
        )

    def __post_init__(self) -> None:
        for name in self.__slots__:
            low = 0 if name in ("keep_entries", "keep_entries_max", "reserve_bytes") else 1
            if getattr(self, name) < low:
                raise InvalidConfig(f"{name} is {getattr(self, name)}; it must be at least {low}")
        if self.transfer_give_up_ticks <= self.transfer_resend_ticks:
            raise InvalidConfig(
                f"transfer_give_up_ticks is {self.transfer_give_up_ticks}; it must exceed "
                f"transfer_resend_ticks ({self.transfer_resend_ticks}), five times is usual"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """Time, for one group: all members should have the same.

    An election begins when a leader was not heard of for one to two election timeouts: half a
    second at least, so that a busy machine causes none, and a second at most, so that clients
    hardly notice.
    """

    tick_ms: int = 50
    heartbeat_ticks: int = 2
    election_timeout_ticks: int = 10
    succession_ms: int = 100
    """After the leader's connection broke. If it was the connection alone, it is back by then; a
    process that ended need not be waited for any longer."""
    catch_up_ticks_max: int = 2
    """After a pause of the process, it is not the others who were silent."""
    member: MemberSettings = field(default_factory=MemberSettings)

    @property
    def election_timeout_ms(self) -> int:
        """The shortest."""
        return self.tick_ms * self.election_timeout_ticks
