"""What an attempt is given by whoever runs it: a worker, or the local backend."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from minimr import inputs, outputs
from minimr.format_options import shuffle_compression
from minimr.formats.storage import Storage
from minimr.ids import WorkerId
from minimr.inputs import InputFormat
from minimr.job import Job
from minimr.messages import Assignment, JobSpec
from minimr.outputs import Compression, OutputFormat
from minimr.pairs import Pairs
from minimr.shuffle.fetch import SegmentFetcher
from minimr.shuffle.pack import SegmentPack
from minimr.tasks.failures import AttemptCancelled
from minimr.tasks.gasp import GaspPage
from minimr.tasks.map_outputs import MapOutputs
from minimr.tasks.memory_plan import MemoryPlan

__all__ = ["AttemptContext"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptContext:
    """Everything an attempt may touch.

    ``scratch`` is this worker's segment directory: outputs stay there, temporary files do not.
    ``address`` and ``host`` say where its segments can be had from. ``report_progress`` gets bytes
    done and in total. ``is_cancelled`` is asked between batches, so it must be cheap.
    ``page`` is where the attempt says which record it maps. ``map_outputs`` tells a reduce what it
    was not told with its assignment; None: that is all there is. ``pack`` is where it puts a small
    segment; None: into a file of its own.
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
    page: GaspPage = field(default_factory=GaspPage.private)
    map_outputs: MapOutputs | None = None
    pack: SegmentPack | None = None
    last_pairs: Callable[[], Iterable[Pairs]] = tuple  # what the function gives after its records

    @property
    def memory(self) -> MemoryPlan:
        return MemoryPlan(memory_bytes=self.spec.memory_bytes)

    def check_cancelled(self) -> None:
        if self.is_cancelled():
            raise AttemptCancelled

    @property
    def input_format(self) -> InputFormat:
        return inputs.chosen_format(self.job.input_format, dict(self.spec.settings))

    @property
    def output_format(self) -> OutputFormat:
        return outputs.chosen_format(self.job.output_format, dict(self.spec.settings))

    @property
    def shuffle_compression(self) -> str:
        return shuffle_compression(dict(self.spec.settings))

    @property
    def compression(self) -> Compression:
        return outputs.chosen_compression(dict(self.spec.settings))
