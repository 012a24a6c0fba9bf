"""A job's status as clients see it, computed from its record and from what runs now."""

from collections.abc import Sequence

from minimr.coordinator.skew import skew_of
from minimr.coordinator.state import AttemptEnd, JobRecord, JobStage
from minimr.ids import TaskPhase
from minimr.messages import JobState, JobStatus, Progress

__all__ = ["attempt_counters", "job_status", "status_version"]

_NEWS_MAX = 1_000_000  # reports of progress between two commits: days of pings
_COUNTED_PHASES = (TaskPhase.MAP, TaskPhase.REDUCE)


def attempt_counters(
    record: JobRecord, running: Sequence[Progress] = (), backups_running: int = 0
) -> dict[str, int]:
    """The job's counters with ``{map,reduce}.attempts.*`` and ``backup.*``: launched = the ended +
    the running."""
    counters = dict(sorted(record.counters.items()))
    for phase in _COUNTED_PHASES:
        if phase is TaskPhase.REDUCE and record.reduce_count == 0:
            continue
        ends = {end: record.tally.get((phase, end), 0) for end in AttemptEnd}
        busy = sum(progress.attempt.task.phase is phase for progress in running)
        name = f"{phase.value}.attempts"
        counters[f"{name}.launched"] = sum(ends.values()) + busy
        counters[f"{name}.committed"] = ends[AttemptEnd.COMMITTED]
        counters[f"{name}.lost"] = ends[AttemptEnd.LOST]
        counters[f"{name}.set_back"] = ends[AttemptEnd.SET_BACK]
        counters[f"{name}.failed"] = ends[AttemptEnd.FAILED] + ends[AttemptEnd.EXCUSED]
    counters["backup.launched"] = record.backups_won + record.backups_wasted + backups_running
    counters["backup.won"] = record.backups_won
    counters["backup.wasted"] = record.backups_wasted
    return counters


def status_version(record: JobRecord, news: int = 0) -> int:
    """Order of statuses: changes of the record count first, then ``news`` of running attempts."""
    return record.version * _NEWS_MAX + min(news, _NEWS_MAX - 1)


def job_status(
    record: JobRecord,
    now_ms: int,
    *,
    news: int = 0,
    running: Sequence[Progress] = (),
    backups_running: int = 0,
    waiting: str = "",
) -> JobStatus:
    """Status of a job; ``running`` is the progress of its running attempts, ``backups_running`` how
    many of them are backups."""
    ended = record.ended_as is not None
    spec = record.spec
    counters = attempt_counters(record, running, backups_running)
    return JobStatus(
        job_id=spec.job_id,
        name=spec.name,
        state=_state(record),
        version=status_version(record, news),
        output=spec.output,
        map_count=record.map_count,
        maps_done=record.maps_done,
        reduce_count=record.reduce_count,
        reduces_done=record.reduces_done,
        input_bytes=record.input_bytes,
        input_bytes_done=record.input_bytes_done + _busy_bytes(running, TaskPhase.MAP),
        shuffle_bytes=record.shuffle_bytes,
        shuffle_bytes_done=min(
            record.shuffle_bytes,
            record.counters.get("shuffle.bytes", 0) + _busy_bytes(running, TaskPhase.REDUCE),
        ),
        counters=counters,
        phase_ms=_phase_ms(record, now_ms),
        submitted_ms=record.admitted_ms,
        ended_ms=now_ms if ended else 0,
        failure=record.failure,
        failed_task=record.failed_task,
        waiting=waiting,
        parts=tuple(record.published_parts()) if record.ended_as is JobState.DONE else (),
        skew=skew_of(record) if record.ended_as is JobState.DONE else None,
    )


def _state(record: JobRecord) -> JobState:
    if record.ended_as is not None:
        return record.ended_as
    return JobState.PUBLISHING if record.stage is JobStage.PUBLISH else JobState.RUNNING


def _busy_bytes(running: Sequence[Progress], phase: TaskPhase) -> int:
    """Of two attempts of a task the one that is further counts."""
    furthest: dict[int, int] = {}
    for progress in running:
        task = progress.attempt.task
        if task.phase is phase:
            done_bytes = min(progress.done_bytes, progress.total_bytes)
            furthest[task.index] = max(done_bytes, furthest.get(task.index, 0))
    return sum(furthest.values())


def _phase_ms(record: JobRecord, now_ms: int) -> dict[str, int]:
    """Lengths of the phases so far. A map that runs again later belongs to the reduce phase."""
    maps_end = record.maps_done_ms or now_ms
    reduces_end = record.reduces_done_ms or now_ms
    return {
        TaskPhase.MAP.value: maps_end - record.admitted_ms,
        TaskPhase.REDUCE.value: reduces_end - maps_end,
        TaskPhase.PUBLISH.value: now_ms - reduces_end,
    }
