"""How jobs end: a stopped one when its last attempt has, a complete one when its output stands."""

from collections.abc import Iterator

from minimr.coordinator.commands import EndJob
from minimr.coordinator.effects import DiscardStaging, Propose, PublishOutput
from minimr.coordinator.machine import CoordinatorMachine
from minimr.coordinator.running import RunningAttempts
from minimr.coordinator.state import JobStage
from minimr.ids import JobId
from minimr.messages import JobSpec

__all__ = ["Closing"]


class Closing:
    """Asks once for what ends a job."""

    def __init__(self, machine: CoordinatorMachine, running: RunningAttempts) -> None:
        self._machine = machine
        self._running = running
        self._publishing: set[JobId] = set()
        self._ending: dict[JobId, JobSpec] = {}

    def due(self, now_ms: int) -> Iterator[Propose | PublishOutput]:
        """What is to be done now."""
        for record in self._machine.state.jobs.values():
            job_id = record.job_id
            # Once the last attempt of a stopped job has ended, nothing writes below its staging.
            is_drained = record.stopped and not self._running.slots_of_job(job_id)
            if is_drained and job_id not in self._ending:
                self._ending[job_id] = record.spec
                yield Propose(command=EndJob(now_ms=now_ms, job_id=job_id))
            is_ready = record.stage is JobStage.PUBLISH and record.is_settled(record.publish_task)
            is_ours = record.spec.published_by_master and job_id not in self._publishing
            if is_ready and is_ours:
                self._publishing.add(job_id)
                yield PublishOutput(spec=record.spec)

    def ended(self, job_id: JobId) -> DiscardStaging:
        """A stopped job has ended: what it leaves is to go."""
        return DiscardStaging(spec=self._ending.pop(job_id))

    def forget_job(self, job_id: JobId) -> None:
        self._publishing.discard(job_id)
