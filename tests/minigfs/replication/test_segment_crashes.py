"""A crash at any moment of any history leaves what was promised, and nothing that never was."""

import errno
import random

import pytest

from minigfs.errors import NoSpace
from minigfs.replication.durable_log import DurableLog, NoLog
from tests.minigfs.replication.log_histories import (
    Expected,
    History,
    entry,
    found,
    persist,
    reopen,
    snapshot_pieces,
)
from tests.sim.clock import SimRng
from tests.sim.disk import SimDisk


class PowerCut(Exception):
    pass


class CutDisk(SimDisk):
    """Loses power before the k-th change from now."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0
        self.cut_at: int | None = None
        self.before_change = self._count

    def _count(self, operation: str, path: str) -> None:
        if self.changes == self.cut_at:
            raise PowerCut
        self.changes += 1

    def lose_power(self, how: int) -> None:
        """Nothing un-synced survives, or all but half of the last write, or what chance has it."""
        self.cut_at = None
        match how % 4:
            case 0:
                self.crash()
            case 1:
                self.crash(torn_bytes=how % 97)
            case _:
                self.crash_by_chance(SimRng(how))


def check(log: DurableLog, allowed: list[Expected]) -> Expected:
    """The one of the allowed states that the log shows."""
    reasons = [expected.differs(log) for expected in allowed]
    assert None in reasons, reasons
    shown = allowed[reasons.index(None)]
    if shown.snapshot.last_included_index:
        with log.snapshots.open(log.snapshot().data.decode()) as reader:
            assert list(reader.pieces()) == snapshot_pieces(shown.snapshot)
    return shown


def check_goes_on(disk: SimDisk, log: DurableLog, expected: Expected) -> None:
    """What is saved after a recovery is there after the next crash."""
    unit = persist(entry(log.last_index() + 1, max(log.hard_state().current_term, 1)))
    log.save(unit)
    expected.save(unit)
    disk.crash()
    check(reopen(disk), [expected])


@pytest.mark.parametrize("seed", range(2))
def test_a_crash_before_any_change_on_disk_leaves_the_state_before_or_after_the_save(seed) -> None:
    cut, steps, is_over = 0, 30, False
    while not is_over:
        disk, history = CutDisk(), History(seed)
        log = found(disk)
        disk.changes, disk.cut_at = 0, cut
        allowed = [history.expected]
        try:
            for _ in range(steps):
                save, allowed = history.step(log)
                log.complete(save)
                history.expected = allowed[-1]
                allowed = allowed[-1:]
            is_over = True
        except PowerCut:
            pass
        disk.lose_power(cut * 7 + seed)
        log = reopen(disk)
        check_goes_on(disk, log, check(log, allowed))
        cut += 1
    assert cut > 100


@pytest.mark.parametrize("seed", range(20))
def test_a_member_that_crashes_again_and_again_keeps_every_promise(seed) -> None:
    chance = random.Random(seed)
    disk, history = CutDisk(), History(seed)
    log, allowed = found(disk), [history.expected]
    for _ in range(60):
        disk.cut_at = disk.changes + chance.randint(0, 60)
        try:
            while True:
                if chance.random() < 0.1:
                    disk.fail(chance.choice(["write", "sync"]), errno.ENOSPC)
                allowed = [history.expected]
                try:
                    save, allowed = history.step(log)
                except NoSpace:  # while it wrote the snapshot file
                    break
                try:
                    save.run()
                except NoSpace:
                    assert allowed[0].differs(log) is None
                    save.run()
                log.finish_save(save)
                history.expected = allowed[-1]
                assert history.expected.differs(log) is None
        except PowerCut:
            pass
        disk.lose_power(chance.randrange(1 << 30))
        log = reopen(disk)
        history.expected = check(log, allowed)
        history.expected.first = log.first_index()


def test_a_crash_while_a_start_repairs_is_repaired_by_the_next_start() -> None:
    history = History(5)

    def crashed() -> CutDisk:
        disk, history = CutDisk(), History(5)
        log = found(disk)
        for _ in range(25):
            save, allowed = history.step(log)
            log.complete(save)
            history.expected = allowed[-1]
        log.begin_save(persist(entry(log.last_index() + 1, 99, b"x" * 600)))
        disk.cut_at = disk.changes + 1  # written, not synced
        with pytest.raises(PowerCut):
            log._outstanding.run()
        disk.cut_at = None
        disk.crash(torn_bytes=300)
        expected.append(history.expected)
        return disk

    expected: list[Expected] = []
    disk = crashed()
    whole = disk.changes
    reopen(disk)
    repairs = disk.changes - whole
    assert repairs > 3
    for cut in range(repairs):
        disk = crashed()
        disk.cut_at = disk.changes + cut
        with pytest.raises(PowerCut):
            reopen(disk)
        disk.lose_power(cut)
        log = reopen(disk)
        check_goes_on(disk, log, check(log, [expected[-1]]))
    assert history.expected == Expected()


def test_a_crash_while_a_log_is_made_leaves_a_whole_one_or_none() -> None:
    outcomes = []
    for cut in range(40):
        disk = CutDisk()
        disk.cut_at = cut
        try:
            found(disk)
        except PowerCut:
            outcomes.append("cut")
        disk.lose_power(cut * 5 + 2)
        try:
            log = reopen(disk)
        except NoLog:
            log = found(disk)
        check_goes_on(disk, log, check(log, [Expected()]))
    assert outcomes.count("cut") in range(8, 35)


def test_a_save_that_a_full_disk_refused_is_not_there_after_a_crash() -> None:
    for failing in ("write", "sync"):
        for filled in range(8):  # near and across the end of the segment
            disk = SimDisk()
            log = found(disk)
            for index in range(1, filled + 1):
                log.save(persist(entry(index, 1, b"x" * 100)))
            save = log.begin_save(persist(entry(filled + 1, 1, b"y" * 100)))
            disk.fail(failing, errno.ENOSPC)
            with pytest.raises(NoSpace):
                save.run()
            assert log.last_index() == filled
            disk.crash_by_chance(SimRng(filled))
            assert reopen(disk).last_index() == filled
