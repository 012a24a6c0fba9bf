"""What a run ends with when something that must always hold does not."""

__all__ = ["ProcessCrash", "Violation", "require"]


class Violation(AssertionError):
    """``kind`` names the broken promise; two runs with the same kind show the same fault."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class ProcessCrash(BaseException):
    """A simulated process ends here. No ``Exception``: production code must not get to catch it."""


def require(condition: bool, kind: str, text: str) -> None:
    if not condition:
        raise Violation(kind, text)
