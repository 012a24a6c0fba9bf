"""What a master's job side says of itself for Prometheus; the same on every master."""

from collections import Counter
from collections.abc import Iterator

from minigfs.transport.metrics import Metric
from minimr.coordinator.state import CoordinatorState

__all__ = ["job_metrics"]


def job_metrics(state: CoordinatorState) -> Iterator[Metric]:
    """From any thread: tables of a state are replaced, never changed."""
    yield Metric("minimr_jobs_unfinished", "Jobs that have not ended.", len(state.jobs))
    ends = Counter(status.state.value for status in state.history)
    yield Metric(
        "minimr_jobs_remembered",
        "Ended jobs that are still remembered, by how they ended.",
        [({"state": name}, count) for name, count in sorted(ends.items())],
    )
    yield Metric("minimr_known_workers", "Workers that may run attempts.", len(state.workers))
    records = tuple(state.jobs.values())
    yield Metric(
        "minimr_input_done_bytes",
        "Input of unfinished jobs that is mapped.",
        sum(record.input_bytes_done for record in records),
    )
    yield Metric(
        "minimr_input_bytes",
        "Input of unfinished jobs.",
        sum(record.input_bytes for record in records),
    )
