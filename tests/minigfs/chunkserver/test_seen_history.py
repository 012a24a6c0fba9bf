"""Only a master that confirms what was seen is obeyed, also after a restart."""

from pathlib import Path

import pytest

from minigfs.chunkserver.seen_history import SeenHistory
from minigfs.errors import InvalidConfig
from minigfs.master.heartbeat_messages import HeartbeatReply, HistoryPosition
from minigfs.ports import RealDisk
from tests.minigfs.chunkserver.test_trash import SteppedClock


def position(term: int, index: int) -> HistoryPosition:
    return HistoryPosition(term=term, index=index, nonce=term * 2**60)


def answer(
    confirms: HistoryPosition | None, newest: HistoryPosition | None = None
) -> HeartbeatReply:
    return HeartbeatReply(send_full_report=False, delete=(), confirms=confirms, position=newest)


def beat(history: SeenHistory, newest: HistoryPosition) -> bool:
    """A heartbeat to a master whose history has all that was seen."""
    seen = history.newest
    return history.believes(answer(seen, newest), seen, "m:1")


def test_a_new_server_believes_the_first_master_and_then_only_its_like(tmp_path: Path) -> None:
    history = SeenHistory(RealDisk(tmp_path), SteppedClock())
    assert beat(history, position(2, 10))
    assert history.newest == position(2, 10)
    seen = history.newest
    assert not history.believes(answer(None), seen, "old:1")
    assert not history.believes(answer(position(2, 9), position(9, 99)), seen, "old:1")
    assert history.is_ignoring
    assert history.newest == position(2, 10), "a stranger teaches nothing"
    assert beat(history, position(3, 11))
    assert not history.is_ignoring


def test_a_restart_remembers_a_new_term_at_once_and_an_index_within_seconds(
    tmp_path: Path,
) -> None:
    clock = SteppedClock()
    history = SeenHistory(RealDisk(tmp_path), clock)
    beat(history, position(1, 5))
    beat(history, position(2, 6))
    assert SeenHistory(RealDisk(tmp_path), clock).newest == position(2, 6)
    beat(history, position(2, 7))
    clock.ms += 5_000
    beat(history, position(2, 8))
    assert SeenHistory(RealDisk(tmp_path), clock).newest == position(2, 8)


def test_an_older_position_does_not_replace_a_newer_one(tmp_path: Path) -> None:
    history = SeenHistory(RealDisk(tmp_path), SteppedClock())
    beat(history, position(3, 30))
    beat(history, position(3, 29))
    assert history.newest == position(3, 30)


def test_a_damaged_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "history.json").write_bytes(b'{"term": 1')
    with pytest.raises(InvalidConfig, match="remove it if you are sure"):
        SeenHistory(RealDisk(tmp_path), SteppedClock())
