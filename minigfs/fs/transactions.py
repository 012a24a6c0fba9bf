"""``with fs.transaction:`` all files written in the block appear at its end, by one change.

fsspec's own transaction publishes file after file: a crash in between, or a refusal of one of them,
leaves the first half visible. Here the masters take them together or not at all, with whatever
conditions the block adds to ``change``::

    with fs.transaction as transaction:
        transaction.change.require_missing("/out/_SUCCESS")
        transaction.change.rename("/staging/index", "/out/index")
        fs.pipe_file("/out/part-0", ...)
"""

from collections import deque
from typing import TYPE_CHECKING, Any

from fsspec.transaction import Transaction

if TYPE_CHECKING:
    from minigfs.client.transaction import Transaction as Change
    from minigfs.files import AppearsOnClose

__all__ = ["AtomicTransaction"]


class AtomicTransaction(Transaction):  # type: ignore[misc]  # fsspec is untyped
    """Made by fsspec when ``fs.transaction`` is asked for."""

    def __init__(self, fs: Any, **options: Any) -> None:
        super().__init__(fs, **options)
        self._change: Change | None = None

    @property
    def change(self) -> "Change":
        """The change under way, for conditions, renames and whatever else is to happen with the
        files."""
        if self._change is None:
            self._change = self.fs.client.transaction()
        return self._change

    def complete(self, commit: bool = True) -> None:
        """Publish the files, all or none, or discard them; either way the transaction is over."""
        files: list[AppearsOnClose] = list(self.files)
        self.files: deque[AppearsOnClose] = deque()
        change = self.change if files else self._change
        self._change = None
        try:
            if commit and change is not None:
                for file in files:
                    writer = file.hand_over()
                    if writer is not None:
                        if file.basis is not None:
                            change.require(file.basis)
                        change.publish(writer)
                change.commit()
        finally:
            for file in files:
                file.discard()
            if change is not None:
                change.discard()
            super().complete(commit=False)  # nothing is left to discard: it resets the instance
