"""The newest position of the masters' history that this server was told of, kept with the chunks.

Orders are taken only from a master whose own history went through that position (``minigfs.master
.history`` says why); it proves so by confirming, in its reply, the very position the heartbeat
named. The file lags a few seconds behind, which a master's copy would have to fall into to be
believed after a restart of this server.
"""

import logging

import msgspec

from minigfs.errors import InvalidConfig
from minigfs.master.heartbeat_messages import HeartbeatReply, HistoryPosition
from minigfs.ports import Clock, Disk

__all__ = ["SeenHistory"]

logger = logging.getLogger(__name__)

_FILE = "history.json"
_SAVE_INTERVAL_MS = 5_000


class _Saved(msgspec.Struct, frozen=True):
    term: int
    index: int
    nonce: int


class SeenHistory:
    """Belongs to the thread that sends heartbeats."""

    def __init__(self, disk: Disk, clock: Clock) -> None:
        """Raises ``InvalidConfig`` if the file is damaged."""
        self._disk = disk
        self._clock = clock
        self.newest = _load(disk)
        self._saved_term = self.newest.term if self.newest is not None else 0
        self._saved_ms: int | None = None
        self.is_ignoring = False

    def believes(self, reply: HeartbeatReply, asked: HistoryPosition | None, master: str) -> bool:
        """Whether to obey the reply to a heartbeat that named the position ``asked``."""
        believed = reply.confirms == asked == self.newest
        if not believed and not self.is_ignoring:
            assert self.newest is not None
            logger.error(
                "the orders of the master at %s are ignored: its log lacks entry %d of term %d, "
                "which this server has seen. It was started from an old copy; or, if that copy is "
                "all that is left and newer files may be deleted, stop this server and remove its "
                "%s",
                master,
                self.newest.index,
                self.newest.term,
                _FILE,
            )
        if believed and self.is_ignoring:
            logger.info("the orders of the master at %s are obeyed again", master)
        self.is_ignoring = not believed
        if believed and reply.position is not None:
            self._learn(reply.position)
        return believed

    def _learn(self, position: HistoryPosition) -> None:
        newest = self.newest
        if newest is not None and (position.term, position.index) <= (newest.term, newest.index):
            return
        self.newest = position
        now_ms = self._clock.monotonic_ms()
        is_due = self._saved_ms is None or now_ms - self._saved_ms >= _SAVE_INTERVAL_MS
        if is_due or position.term != self._saved_term:
            self._save(position)
            self._saved_ms, self._saved_term = now_ms, position.term

    def _save(self, position: HistoryPosition) -> None:
        part = f"{_FILE}.part"
        saved = _Saved(position.term, position.index, position.nonce)
        try:
            with self._disk.open(part, create=True) as file:
                file.truncate(0)
                file.write_at(0, msgspec.json.encode(saved))
                file.sync()
            self._disk.rename(part, _FILE)
            self._disk.sync_dir("")
        except OSError as error:  # the next one is tried as well; what is kept stays true
            logger.warning("cannot keep %s: %s", _FILE, error)


def _load(disk: Disk) -> HistoryPosition | None:
    if not disk.exists(_FILE):
        return None
    with disk.open(_FILE) as file:
        content = file.read_at(0, file.size_bytes())
    try:
        saved = msgspec.json.decode(content, type=_Saved)
    except msgspec.DecodeError as error:
        raise InvalidConfig(
            f"{_FILE} is damaged ({error}): without it this server cannot tell an old master from "
            "the true one; remove it if you are sure that the masters are the true ones"
        ) from error
    return HistoryPosition(term=saved.term, index=saved.index, nonce=saved.nonce)
