"""A spare file is written by one writer of one process, and only as long as the master keeps it."""

import os

from minigfs.client.spare_files import SpareFiles
from minigfs.ids import FileId
from minigfs.master.messages import SPARE_USE_MS, Created
from tests.sim.clock import SimClock

CREATED = Created(file_id=FileId(7), chunk_bytes=1024, replication=3)


def test_a_spare_that_was_put_back_is_the_next_writers_and_only_his() -> None:
    spares = SpareFiles(SimClock())
    spare = spares.given(CREATED, spares.now_ms())
    assert spares.take() is None
    spare.put_back()
    assert spares.take() is spare
    assert spares.take() is None


def test_a_spare_is_not_used_when_the_master_may_have_given_it_up() -> None:
    clock = SimClock()
    spares = SpareFiles(clock)
    spare = spares.given(CREATED, spares.now_ms())
    clock.advance(SPARE_USE_MS - 1)
    assert spare.is_usable()
    spare.put_back()
    clock.advance(1)
    assert not spare.is_usable()
    assert spares.take() is None


def test_a_child_of_a_fork_does_not_use_what_its_parent_may() -> None:
    spares = SpareFiles(SimClock())
    spares.given(CREATED, spares.now_ms()).put_back()
    child = os.fork()
    if child == 0:
        os._exit(0 if spares.take() is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert spares.take() is not None
