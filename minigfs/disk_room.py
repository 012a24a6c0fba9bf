"""How much of a disk stays free: one rule for the master's placement and everybody's trash.

A share of the disk, but never more than a few chunks' worth of bytes: five percent of a large disk
would keep hundreds of gigabytes from ever being used.
"""

__all__ = ["full_at_bytes", "short_at_bytes"]

_FULL_PERCENT_FREE = 5
_FULL_FREE_BYTES_MAX = 4 << 30

_SHORT_PERCENT_FREE = 10
_SHORT_FREE_BYTES_MAX = 8 << 30


def full_at_bytes(capacity_bytes: int) -> int:
    """With so much free or less, a server takes no data: a master on its disk must still work."""
    return min(capacity_bytes * _FULL_PERCENT_FREE // 100, _FULL_FREE_BYTES_MAX)


def short_at_bytes(capacity_bytes: int) -> int:
    """With less than this free, what was removed and only rests goes before its time."""
    return min(capacity_bytes * _SHORT_PERCENT_FREE // 100, _SHORT_FREE_BYTES_MAX)
