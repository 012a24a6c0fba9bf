"""A clock that stands still until a test moves it."""

__all__ = ["SteppedClock"]


class SteppedClock:
    """Both times are the same."""

    def __init__(self, ms: int = 1_000_000) -> None:
        self.ms = ms

    def now_ms(self) -> int:
        return self.ms

    def monotonic_ms(self) -> int:
        return self.ms

    def sleep(self, seconds: float) -> None:
        """In the place of ``time.sleep``: the time has passed when it returns."""
        self.ms += int(seconds * 1000)
