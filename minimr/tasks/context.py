"""What an attempt is given by whoever runs it: a worker, or the local backend."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from minimr.formats.storage import Storage
from minimr.ids import WorkerId
from minimr.job import Job
from minimr.messages import Assignment, JobSpec
from minimr.shuffle.fetch import SegmentFetcher
from minimr.tasks.failures import AttemptCancelled

__all__ = ["AttemptContext"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptContext:
    """Everything an attempt may touch.

    ``scratch`` is this worker's segment directory: outputs stay there, temporary files do not.
    ``address`` and ``host`` say where its segments can be had from. ``report_progress`` gets bytes
    done and in total. ``is_cancelled`` is asked between batches, so it must be cheap.
    """

    job: Job
    spec: JobSpec
    assignment: Assignment
    scratch: Path
    worker_id: WorkerId
    address: str
    host: str
    fetcher: SegmentFetcher
    report_progress: Callable[[int, int], None]
    is_cancelled: Callable[[], bool]
    storage: Storage = field(default_factory=Storage)

    def check_cancelled(self) -> None:
        if self.is_cancelled():
            raise AttemptCancelled

    @property
    def escapes_text(self) -> bool:
        """The setting ``escape=true`` (DESIGN 5.4)."""
        return dict(self.spec.settings).get("escape", "false").lower() == "true"
