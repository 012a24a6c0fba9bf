"""When a task is run a second time while its first attempt goes on (MapReduce section 3.6).

Policies look at one phase of one job and answer two questions for a slot that is free now: is
there a task whose backup it should run, and (the other side of the coin) should it rather stay idle
because its worker is so slow that whatever it began would end last? They only decide; attempts are
made and ended elsewhere, the first commit of a task wins.

========  =======================================================================================
none      never
paper     once nothing waits, every task that still runs, the oldest first
rate      the task that ends last by its progress in bytes, if another attempt would be faster by
          a margin; before the phase's end only if that also saves work (``time left > 2 x again``,
          the resource-aware rule of GRASS); an eighth of the slots at most, then a fourth
========  =======================================================================================
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from minimr.coordinator.pace import Pace

__all__ = ["POLICIES", "SLOW_PERMILLE", "BackupPolicy", "PhaseView", "TaskView"]

_SLOW = 2  # an attempt counts as slow when it takes so many times as long as its bytes should
_SLOTS_PER_BACKUP = 8  # while tasks wait; when none does,
_SLOTS_PER_LATE_BACKUP = 4
_MARGIN_MS = 500  # what an attempt may cost that was not needed after all: noise is no straggler
_UNKNOWN_SIZE_MS = 3_000  # till then an attempt is not stuck that has not said how much it has to
# do, nor slow if only such are done as had nothing to do
SLOW_PERMILLE = 1000 * _SLOW  # a worker that is so slow gets no backups
_VERY_SLOW_PERMILLE = 3_000
_NEAR_END_SHARE = 20  # the paper's "close to completion": the last twentieth, or what still runs


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """A task with a single running attempt. ``reported_ms`` is how long it had run when it said
    ``done_bytes``; ``total_bytes`` 0: not known."""

    index: int
    elapsed_ms: int
    reported_ms: int
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseView:
    """``slot_count``: slots that may be given tasks; ``running``: the oldest first."""

    task_count: int
    done_count: int
    idle_count: int
    slot_count: int
    backup_count: int
    pace: Pace
    running: tuple[TaskView, ...]


class BackupPolicy(Protocol):
    """Pure: the same view, the same answer."""

    def choose(self, phase: PhaseView) -> int | None:
        """The task that a free slot should run a second time."""

    def spares(self, phase: PhaseView, slowness_permille: int) -> bool:
        """Whether a worker that takes ``slowness_permille / 1000`` times as long as usual should
        get none of the phase's idle tasks."""


class NoBackups:
    """Every task has one attempt at a time."""

    def choose(self, phase: PhaseView) -> int | None:
        del phase
        return None

    def spares(self, phase: PhaseView, slowness_permille: int) -> bool:
        del phase, slowness_permille
        return False


class PaperBackups(NoBackups):
    """Section 3.6, to the letter."""

    def choose(self, phase: PhaseView) -> int | None:
        open_count = phase.task_count - phase.done_count
        is_near_end = open_count <= max(phase.slot_count, phase.task_count // _NEAR_END_SHARE)
        if phase.idle_count or not is_near_end or not phase.done_count:
            return None
        return phase.running[0].index if phase.running else None


class RateBackups:
    """The default: by progress rates, so that a big task is not taken for a slow worker."""

    def choose(self, phase: PhaseView) -> int | None:
        if not phase.pace.is_usual_known(phase.task_count):
            return None
        share = _SLOTS_PER_BACKUP if phase.idle_count else _SLOTS_PER_LATE_BACKUP
        if phase.backup_count >= max(1, phase.slot_count // share):
            return None
        ends_last: tuple[int, int] | None = None
        for task in phase.running:
            if task.elapsed_ms < _UNKNOWN_SIZE_MS and not phase.pace.knows(task.total_bytes):
                continue
            again_ms = phase.pace.expected_ms(task.total_bytes)
            left_ms = _time_left_ms(task, again_ms)
            is_worth_it = left_ms > again_ms * 5 // 4 + _MARGIN_MS
            saves_work = left_ms > 2 * again_ms
            if is_worth_it and (saves_work or not phase.idle_count):
                ends_last = max(ends_last or (0, -1), (left_ms, task.index))
        return ends_last[1] if ends_last is not None else None

    def spares(self, phase: PhaseView, slowness_permille: int) -> bool:
        if slowness_permille < _VERY_SLOW_PERMILLE or phase.slot_count < 2 or not len(phase.pace):
            return False
        usual_ms = phase.pace.median_ms
        others_ms = usual_ms * phase.idle_count // (phase.slot_count - 1) + usual_ms
        return usual_ms * slowness_permille // 1000 > others_ms + _MARGIN_MS


def _time_left_ms(task: TaskView, expected_ms: int) -> int:
    """How long a slow attempt will still take; 0 for one that is not slow, or not to be judged
    yet: before the time that it should take, its rate is mostly its start."""
    if task.elapsed_ms < expected_ms:
        return 0
    is_overdue = task.elapsed_ms > _SLOW * expected_ms
    if task.done_bytes <= 0:
        if not is_overdue or (task.total_bytes <= 0 and task.elapsed_ms < _UNKNOWN_SIZE_MS):
            return 0
        return task.elapsed_ms * 3 // 2  # it has done nothing yet, so it is far from its end
    whole_ms = task.reported_ms * task.total_bytes // task.done_bytes
    if whole_ms > _SLOW * expected_ms:
        return max(0, whole_ms - task.elapsed_ms, (task.elapsed_ms // 2) * is_overdue)
    return task.elapsed_ms // 2 if is_overdue else 0


POLICIES: Mapping[str, BackupPolicy] = {
    "none": NoBackups(),
    "paper": PaperBackups(),
    "rate": RateBackups(),
}
