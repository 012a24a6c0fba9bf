"""How long attempts of a phase take, learnt from those that committed: what "slow" is told by.

An attempt's duration is judged by its bytes, so that a big task on a healthy worker is no
straggler: expected is what its bytes take at the median rate, but no less than the lower quartile
of all durations, because a tiny task still pays for its start. The start of its executor is no part
of it: where many start at once, that may take longer than the work.
"""

from bisect import insort

__all__ = ["Pace"]

_ENOUGH_DONE = 10  # tasks after which, or
_ENOUGH_SHARE = 4  # the fourth part of a phase after which "usual" means something
_PS_PER_MS = 1_000_000_000
_START_MS_MIN = 200  # of one that waits for its job, with its libraries loaded
_START_MS_MAX = 10_000  # dozens of them on a few cores; one that takes longer hangs


class Pace:
    """Of one phase of one job."""

    def __init__(self) -> None:
        self._durations_ms: list[int] = []
        self._ps_per_byte: list[int] = []
        self._longest_start_ms = 0
        self._total_ms = 0

    def __len__(self) -> int:
        return len(self._durations_ms)

    def add(self, size_bytes: int, duration_ms: int, start_ms: int = 0) -> None:
        """An attempt of ``size_bytes`` (0: not known) has committed; it waited ``start_ms`` for its
        executor first."""
        self._longest_start_ms = max(self._longest_start_ms, start_ms)
        insort(self._durations_ms, max(1, duration_ms))
        self._total_ms += max(1, duration_ms)
        if size_bytes > 0:
            insort(self._ps_per_byte, max(1, duration_ms) * _PS_PER_MS // size_bytes)

    def is_usual_known(self, task_count: int) -> bool:
        """Whether enough of a phase's tasks have committed to tell what is usual."""
        done = len(self)
        return done >= 1 and (done >= _ENOUGH_DONE or done * _ENOUGH_SHARE >= task_count)

    def knows(self, size_bytes: int) -> bool:
        """Whether anything tells how long such an attempt should take: one of no known size tells
        nothing of those that have one."""
        return size_bytes <= 0 or bool(self._ps_per_byte)

    @property
    def mean_ms(self) -> int:
        """Rounded up; at least one attempt was added."""
        return -(-self._total_ms // len(self))

    @property
    def median_ms(self) -> int:
        return _quantile(self._durations_ms, 1, 2)

    @property
    def start_allowance_ms(self) -> int:
        """After this, an attempt that has not begun counts as if it had."""
        return min(max(self._longest_start_ms * 3 // 2, _START_MS_MIN), _START_MS_MAX)

    def expected_ms(self, size_bytes: int) -> int:
        """What an attempt takes on a usual worker; at least one attempt was added."""
        if size_bytes <= 0 or not self._ps_per_byte:
            return self.median_ms
        by_rate_ms = size_bytes * _quantile(self._ps_per_byte, 1, 2) // _PS_PER_MS
        return max(1, by_rate_ms, _quantile(self._durations_ms, 1, 4))


def _quantile(ordered: list[int], numerator: int, denominator: int) -> int:
    return ordered[(len(ordered) - 1) * numerator // denominator]
