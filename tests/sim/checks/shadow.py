"""The terms of one member's log as the checker last saw them, to find what an event changed."""

__all__ = ["Shadow"]


class Shadow:
    """``terms[i]`` is the term of entry ``base + i``."""

    __slots__ = ("base", "key", "leading", "terms")

    def __init__(self, base: int) -> None:
        self.base = base
        self.terms: list[int] = []
        self.key: tuple[object, ...] = ()
        self.leading: tuple[int, int] | None = None  # (term, last index) while it leads

    @property
    def last_index(self) -> int:
        return self.base + len(self.terms) - 1

    def term_at(self, index: int) -> int | None:
        """None where it is not known (any more)."""
        place = index - self.base
        return self.terms[place] if 0 <= place < len(self.terms) else None

    def cut(self, first: int) -> None:
        del self.terms[max(0, first - self.base) :]

    def restart_at(self, base: int) -> None:
        """A snapshot took the place of everything below ``base``, and of what followed."""
        self.base = base
        self.terms.clear()
