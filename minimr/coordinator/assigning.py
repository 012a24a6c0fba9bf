"""Which task a free worker gets (MapReduce sections 3.4 and 3.6; DESIGN 6.11): decisions only.

A slot goes to the job with the fewest running attempts, of two equal ones to the older: so jobs
share the slots fairly. Of that job it gets, in this order:

1. a backup of an attempt that is so slow that running it again saves work (``backups``);
2. an idle task whose input lies on its host. If other hosts have some and this one has none, the
   slot waits ``LOCALITY_WAIT_MS`` for a better one to come free, then takes a task of its rack,
   waits as long again, then takes any (delay scheduling);
3. when nothing is idle, a backup;
   (of 2, with more of the same if they are short: ``batches``)
4. when no job has any of these for it, a reduce whose job is still mapping: it fetches map outputs
   as they come. Such a reduce gives up its slot as soon as a map needs it (``to_set_back``).

A task that failed goes to a worker on which it has not, if there is one. Workers that fail again
and again, or say that they are unfit, are passed over, unless that would leave nobody.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from minimr.config import BACKUP_LOOK_INTERVAL_MS, LOCALITY_WAIT_MS, RETRY_ELSEWHERE_MS
from minimr.coordinator.backups import POLICIES, SLOW_PERMILLE, PhaseView, TaskView
from minimr.coordinator.batches import Batch
from minimr.coordinator.fleet import Fleet, Worker
from minimr.coordinator.machine import CoordinatorMachine
from minimr.coordinator.pace import Pace
from minimr.coordinator.running import RunningAttempt, RunningAttempts
from minimr.coordinator.scheduling import JobQueue, TaskQueue, phase_to_run
from minimr.coordinator.state import CoordinatorState, JobRecord, JobStage
from minimr.ids import AttemptId, JobId, TaskId, TaskPhase, WorkerId
from minimr.messages import FailureKind, Nearness

__all__ = ["Assigner", "Choice"]

_BACKED_UP = (TaskPhase.MAP, TaskPhase.REDUCE)
_NOISE_MS = 10  # a tiny task that took some milliseconds more tells nothing of its worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """``worker`` is to run ``tasks`` now, one after the other."""

    worker: Worker
    tasks: tuple[tuple[TaskId, Nearness], ...]
    is_backup: bool = False

    @property
    def is_alone(self) -> bool:
        return len(self.tasks) == 1


class Assigner:
    """Owns the idle tasks of all jobs and what is known of their paces."""

    def __init__(self, machine: CoordinatorMachine, fleet: Fleet, running: RunningAttempts) -> None:
        self._machine = machine
        self._fleet = fleet
        self._running = running
        self._queues: dict[JobId, JobQueue] = {}
        self._paces: dict[tuple[JobId, TaskPhase], Pace] = {}
        self._waiting_since_ms: dict[JobId, int] = {}
        self._looked_ms: dict[JobId, int] = {}
        self._due: set[JobId] = set()  # jobs whose slow attempts are looked for in this turn
        self._failed_on: dict[TaskId, dict[WorkerId, int]] = {}
        self._freed: set[WorkerId] = set()  # whose reduces were set back, and that did not poll yet
        self.meet_jobs()

    @property
    def _state(self) -> CoordinatorState:
        return self._machine.state

    # --- what happens to jobs and tasks ----------------------------------------------------------

    def meet_jobs(self) -> None:
        """Jobs may be new in the hard state before anybody says so."""
        for job_id, record in self._state.jobs.items():
            if job_id not in self._queues:
                self._queues[job_id] = JobQueue(record)

    def ended_jobs(self) -> list[JobId]:
        return [job_id for job_id in self._queues if job_id not in self._state.jobs]

    def forget_job(self, job_id: JobId) -> None:
        del self._queues[job_id]
        self._waiting_since_ms.pop(job_id, None)
        self._looked_ms.pop(job_id, None)
        for phase in _BACKED_UP:
            self._paces.pop((job_id, phase), None)
        self._failed_on = {t: on for t, on in self._failed_on.items() if t.job_id != job_id}

    def put(self, task: TaskId) -> None:
        """``task`` is to run (again)."""
        self._queues[task.job_id].put(task)

    def discard(self, task: TaskId) -> None:
        """``task`` runs or is done by other means: an adopted attempt, a late commit."""
        self._queues[task.job_id].discard(task)

    def note_poll(self, worker_id: WorkerId) -> None:
        """The worker is free."""
        self._freed.discard(worker_id)

    def note_failure(self, attempt: AttemptId, kind: FailureKind, now_ms: int) -> None:
        """The task had better run elsewhere, and the worker may be to blame."""
        running = self._running.get(attempt)
        worker = self._fleet.alive(running.worker_id) if running is not None else None
        if worker is not None and kind not in (FailureKind.CANCELLED, FailureKind.FETCH):
            worker.note_failure(attempt.task, kind, now_ms)
            self._failed_on.setdefault(attempt.task, {})[worker.info.worker_id] = now_ms

    def note_commit(self, attempt: AttemptId, rivals: tuple[AttemptId, ...], now_ms: int) -> None:
        """How fast attempts were tells what is usual, and how their workers compare with that."""
        running = self._running.get(attempt)
        if running is not None:
            self._compare(running, now_ms, committed=True)
            worker = self._fleet.alive(running.worker_id)
            if worker is not None:
                worker.note_success()
        for rival in rivals:
            slower = self._running.get(rival)
            if slower is not None:
                self._compare(slower, now_ms, committed=False)

    def _compare(self, running: RunningAttempt, now_ms: int, *, committed: bool) -> None:
        task = running.attempt.task
        if task.phase not in _BACKED_UP:
            return
        pace = self._paces.setdefault((task.job_id, task.phase), Pace())
        size_bytes = self._size_of(running)
        duration_ms = running.took_ms if committed else now_ms - _work_began_ms(running, pace)
        duration_ms = max(1, duration_ms)
        worker = self._fleet.alive(running.worker_id)
        if not committed and 0 < running.done_bytes < size_bytes:
            duration_ms = duration_ms * size_bytes // running.done_bytes
        if worker is not None and len(pace):
            permille = duration_ms * 1000 // max(_NOISE_MS, pace.expected_ms(size_bytes))
            worker.note_slowness(permille, duration_ms, now_ms)
        if committed:
            pace.add(size_bytes, duration_ms, running.start_ms)

    def _size_of(self, running: RunningAttempt) -> int:
        task = running.attempt.task
        record = self._state.jobs.get(task.job_id)
        known = _split_bytes(record, task) if record is not None else 0
        return known or running.total_bytes

    # --- who gets what ---------------------------------------------------------------------------

    def choices(self, now_ms: int) -> Iterator[Choice]:
        """Tasks for workers that wait. The attempt must be running before the next is drawn."""
        fit = self._fleet.fit(now_ms)
        fit_ids = {worker.info.worker_id for worker in fit}
        self._due = {job_id for job_id in self._queues if self._is_due(job_id, now_ms)}
        for worker in self._fleet.waiting():
            # A worker the log does not know yet would not be waited for by the next coordinator.
            if worker.info.worker_id in fit_ids and worker.info.worker_id in self._state.workers:
                choice = self._choice_for(worker, fit, now_ms)
                if choice is not None:
                    yield choice

    def _choice_for(self, worker: Worker, fit: list[Worker], now_ms: int) -> Choice | None:
        jobs = sorted(
            self._state.jobs.values(),
            key=lambda record: self._running.slots_of_job(record.job_id),
        )
        for record in jobs:
            phase = phase_to_run(record)
            if phase is None:
                continue
            choice = self._of_job(record, phase, worker, fit, now_ms)
            if choice is not None:
                return choice
        if self._idle_count():
            return None
        early = (self._early_reduce(record, worker, fit, now_ms) for record in jobs)
        return next((choice for choice in early if choice is not None), None)

    def _of_job(
        self, record: JobRecord, phase: TaskPhase, worker: Worker, fit: list[Worker], now_ms: int
    ) -> Choice | None:
        queue = self._queues[record.job_id].of(phase)
        view = self._view(record, phase, queue, len(fit), now_ms)
        policy = POLICIES[record.spec.backup_policy]
        slowness = worker.slowness_permille(now_ms)
        if view is not None and slowness < SLOW_PERMILLE:
            index = policy.choose(view)
            if index is not None and not self._is_near(record, phase, index, worker, fit):
                task = TaskId(record.job_id, phase, index)
                near = self._nearness(record, task, worker)
                return Choice(worker=worker, tasks=((task, near),), is_backup=True)
        if slowness and len(queue):
            view = view or self._phase_view(record, phase, queue, len(fit), now_ms)
            # The fastest is never spared: slow workers that all waited for each other would stall.
            faster = any(one.slowness_permille(now_ms) < slowness for one in fit)
            if faster and policy.spares(view, slowness):
                return None
        task_index = self._take(record, phase, queue, worker, fit, now_ms)
        if task_index is None:
            return None
        task = TaskId(record.job_id, phase, task_index)
        place = (task, self._nearness(record, task, worker))
        more = self._more(record, queue, place, worker, len(fit), now_ms)
        return Choice(worker=worker, tasks=(place, *more))

    def _more(
        self,
        record: JobRecord,
        queue: TaskQueue,
        first: tuple[TaskId, Nearness],
        worker: Worker,
        slot_count: int,
        now_ms: int,
    ) -> Iterator[tuple[TaskId, Nearness]]:
        """Tasks that are short and as near as ``first``, for the same offer."""
        task, nearness = first
        phase = task.phase
        pace = self._paces.get((record.job_id, phase))
        task_count = record.map_count if phase is TaskPhase.MAP else record.reduce_count
        assert worker.poll is not None
        if worker.poll.most < 2 or pace is None or not pace.is_usual_known(task_count):
            return
        batch = Batch(
            pace,
            most=worker.poll.most,
            idle_count=len(queue),
            slot_count=slot_count,
            slowness_permille=worker.slowness_permille(now_ms),
        )
        hosts = (worker.info.host,) if nearness is Nearness.LOCAL else None
        fits = batch.takes(_split_bytes(record, task))
        while fits and not batch.is_full:
            index = queue.take(hosts, lambda one: self._has_failed(record, phase, one))
            if index is None:
                return
            task = TaskId(record.job_id, phase, index)
            fits = batch.takes(_split_bytes(record, task))
            if fits:
                yield task, self._nearness(record, task, worker)
            else:
                queue.put(index)

    def _has_failed(self, record: JobRecord, phase: TaskPhase, index: int) -> bool:
        return TaskId(record.job_id, phase, index) in self._failed_on

    def _is_near(
        self, record: JobRecord, phase: TaskPhase, index: int, worker: Worker, fit: list[Worker]
    ) -> bool:
        """Whether a backup here would share the host of the attempt that is slow there, while
        another host has slots."""
        of_task = self._running.of_task(TaskId(record.job_id, phase, index))
        slow = {self._fleet.host_of(running.worker_id) for running in of_task}
        return worker.info.host in slow and any(one.info.host not in slow for one in fit)

    # --- reduces while maps run ------------------------------------------------------------------

    def _early_reduce(
        self, record: JobRecord, worker: Worker, fit: list[Worker], now_ms: int
    ) -> Choice | None:
        done_permille = record.maps_done * 1000 // max(1, record.map_count)
        wanted_permille = max(1, record.spec.slowstart_permille)
        if record.stage is not JobStage.MAP or done_permille < wanted_permille:
            return None
        if self._is_too_slow(worker, record, fit, now_ms):
            return None
        queue = self._queues[record.job_id].of(TaskPhase.REDUCE)
        index = self._take(record, TaskPhase.REDUCE, queue, worker, fit, now_ms)
        if index is None:
            return None
        task = TaskId(record.job_id, TaskPhase.REDUCE, index)
        return Choice(worker=worker, tasks=((task, Nearness.REMOTE),))

    def _is_too_slow(
        self, worker: Worker, record: JobRecord, fit: list[Worker], now_ms: int
    ) -> bool:
        """Whether a reduce had better wait for another slot: the job's maps tell."""
        slowness = worker.slowness_permille(now_ms)
        if not slowness:
            return False
        maps = self._queues[record.job_id].of(TaskPhase.MAP)
        view = self._phase_view(record, TaskPhase.MAP, maps, len(fit), now_ms)
        return POLICIES[record.spec.backup_policy].spares(view, slowness)

    def to_set_back(self, waiting: Collection[AttemptId], now_ms: int) -> Iterator[AttemptId]:
        """Of the reduces that wait for maps, those in whose slots maps are to run: the latest."""
        fit = self._fleet.fit(now_ms) if waiting else []
        if not fit or any(worker.poll is not None for worker in fit):
            return
        self._freed = {one for one in self._freed if self._fleet.alive(one) is not None}
        wanted = self._idle_count() + self._backups_wanted(len(fit), now_ms) - len(self._freed)
        found = [one for attempt in waiting if (one := self._running.get(attempt)) is not None]
        for running in sorted(found, key=lambda one: one.began_ms, reverse=True):
            if wanted > 0 and not running.ending:
                wanted -= 1
                self._freed.add(running.worker_id)
                yield running.attempt

    def _idle_count(self) -> int:
        """Tasks that could run now, were there slots."""
        return sum(
            len(self._queues[record.job_id].of(phase))
            for record in self._state.jobs.values()
            if (phase := phase_to_run(record)) is not None
        )

    def _backups_wanted(self, slot_count: int, now_ms: int) -> int:
        """Jobs of which a slow map would be backed up, were there a slot."""
        count = 0
        for record in self._state.jobs.values():
            queue = self._queues[record.job_id].of(TaskPhase.MAP)
            if record.stage is JobStage.MAP and self._is_due(record.job_id, now_ms):
                view = self._phase_view(record, TaskPhase.MAP, queue, slot_count, now_ms)
                is_wanted = POLICIES[record.spec.backup_policy].choose(view) is not None
                count += is_wanted
                if not is_wanted:
                    self._looked_ms[record.job_id] = now_ms
        return count

    # --- backups ---------------------------------------------------------------------------------

    def _is_due(self, job_id: JobId, now_ms: int) -> bool:
        return now_ms - self._looked_ms.get(job_id, 0) >= BACKUP_LOOK_INTERVAL_MS

    def _view(
        self, record: JobRecord, phase: TaskPhase, queue: TaskQueue, slot_count: int, now_ms: int
    ) -> PhaseView | None:
        """What the backup policy is to look at; None if it is not yet time to look again."""
        job_id = record.job_id
        is_due = job_id in self._due and self._running.slots_of_job(job_id) > 0
        if phase not in _BACKED_UP or not is_due:
            return None
        self._looked_ms[job_id] = now_ms
        return self._phase_view(record, phase, queue, slot_count, now_ms)

    def _phase_view(
        self, record: JobRecord, phase: TaskPhase, queue: TaskQueue, slot_count: int, now_ms: int
    ) -> PhaseView:
        is_map = phase is TaskPhase.MAP
        running = self._running.of_phase(record.job_id, phase)
        pace = self._paces.setdefault((record.job_id, phase), Pace())
        return PhaseView(
            task_count=record.map_count if is_map else record.reduce_count,
            done_count=record.maps_done if is_map else record.reduces_done,
            idle_count=len(queue),
            slot_count=slot_count,
            backup_count=sum(one.is_backup for one in running),
            pace=pace,
            running=tuple(
                self._task_view(one, pace, now_ms)
                for one in running
                if not one.ending and len(self._running.of_task(one.attempt.task)) == 1
            ),
        )

    def _task_view(self, running: RunningAttempt, pace: Pace, now_ms: int) -> TaskView:
        work_began_ms = _work_began_ms(running, pace)
        return TaskView(
            index=running.attempt.task.index,
            elapsed_ms=max(0, now_ms - work_began_ms),
            reported_ms=max(0, running.reported_ms - work_began_ms),
            done_bytes=running.done_bytes,
            total_bytes=self._size_of(running),
        )

    # --- locality --------------------------------------------------------------------------------

    def _take(
        self,
        record: JobRecord,
        phase: TaskPhase,
        queue: TaskQueue,
        worker: Worker,
        fit: list[Worker],
        now_ms: int,
    ) -> int | None:
        def avoid(index: int) -> bool:
            failed_on = self._failed_on.get(TaskId(record.job_id, phase, index), {})
            failed_ms = failed_on.get(worker.info.worker_id)
            return (
                failed_ms is not None
                and now_ms - failed_ms < RETRY_ELSEWHERE_MS
                and any(one.info.worker_id not in failed_on for one in fit)
            )

        if not len(queue):
            return None
        index = queue.take((worker.info.host,), avoid)
        if index is not None:
            return index
        waited_ms = 2 * LOCALITY_WAIT_MS
        if queue.is_stored_on({one.info.host for one in fit}):
            since_ms = self._waiting_since_ms.setdefault(record.job_id, now_ms)
            waited_ms = now_ms - max(since_ms, worker.idle_since_ms)
        if worker.info.rack and waited_ms >= LOCALITY_WAIT_MS:
            index = queue.take(self._fleet.hosts_in_rack(worker.info.rack), avoid)
        if index is None and waited_ms >= 2 * LOCALITY_WAIT_MS:
            index = queue.take(None, avoid)
        return index

    def _nearness(self, record: JobRecord, task: TaskId, worker: Worker) -> Nearness:
        if task.phase is not TaskPhase.MAP:
            return Nearness.REMOTE
        hosts = record.spec.splits[task.index].hosts
        if worker.info.host in hosts:
            return Nearness.LOCAL
        rack = worker.info.rack
        if rack and not self._fleet.hosts_in_rack(rack).isdisjoint(hosts):
            return Nearness.RACK
        return Nearness.REMOTE


def _work_began_ms(running: RunningAttempt, pace: Pace) -> int:
    """Since when an attempt is judged. The start of its executor is not held against it (on a busy
    machine that takes many times as long as a small task), unless it takes longer than others do.
    """
    latest_ms = running.began_ms + pace.start_allowance_ms
    return min(running.ready_ms or latest_ms, latest_ms)


def _split_bytes(record: JobRecord, task: TaskId) -> int:
    """Of a map's input; 0 for other tasks."""
    return record.spec.splits[task.index].size_bytes if task.phase is TaskPhase.MAP else 0
