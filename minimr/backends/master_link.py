"""Requests to whichever master leads: a worker's and a client's line to the coordinator."""

from minigfs.errors import UnknownRequest
from minigfs.transport.client import ConnectionPool
from minigfs.transport.group import GroupCaller
from minigfs.transport.messages import ReplyT, Request
from minigfs.transport.security import Security
from minimr.errors import RunsNoJobs

__all__ = ["MasterLink"]

_TIMEOUT_MS = 10_000  # an election takes a second or two


class MasterLink:
    """Thread-safe. Every request to the coordinator may be sent twice without harm: jobs and
    attempts have names of their own."""

    def __init__(self, masters: tuple[str, ...], security: Security) -> None:
        self._masters = masters
        self._pool = ConnectionPool(security)
        self._group = GroupCaller(self._pool, masters)

    def call(
        self, request: Request[ReplyT], *, timeout_ms: int = _TIMEOUT_MS, wait_ms: int = 0
    ) -> ReplyT:
        """The coordinator's answer, which may take ``wait_ms`` on purpose; elections are ridden
        through until ``timeout_ms`` on top have passed. See ``GroupCaller.call`` for errors;
        `RunsNoJobs` if the masters have no coordinator."""
        try:
            return self._group.call(request, timeout_ms=timeout_ms + wait_ms, answer_ms=wait_ms)
        except UnknownRequest as error:
            raise RunsNoJobs(
                f"the cluster of {', '.join(self._masters)} keeps files and runs no jobs, as those "
                "of `minigfs up` do: use `minigfs` with it and run jobs with --backend local, or "
                "make another one with `minimr up`"
            ) from error

    def know(self, masters: tuple[str, ...]) -> None:
        """They have told where all of them listen now."""
        self._group.know(masters)

    def close(self) -> None:
        self._pool.close()
