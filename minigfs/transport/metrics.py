"""Figures of a process in Prometheus' text format; ``metrics_http`` serves them.

Names end in their unit; counters end in ``_total`` and count from the start of the process.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

__all__ = ["Counters", "Metric", "encode_metrics", "process_metrics"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One family: its samples are labels and a value each; a lone value has no labels."""

    name: str
    help: str
    samples: Iterable[tuple[Mapping[str, str], float]] | float

    @property
    def kind(self) -> str:
        return "counter" if self.name.endswith("_total") else "gauge"


class Counters:
    """Named counters that any thread may add to."""

    def __init__(self, helps: Mapping[str, str]) -> None:
        """``helps``: what each one counts, by the name of its metric."""
        self._helps = helps
        self._lock = threading.Lock()
        self._values = dict.fromkeys(helps, 0)

    def add(self, name: str, count: int = 1) -> None:
        with self._lock:
            self._values[name] += count

    def metrics(self) -> Iterator[Metric]:
        with self._lock:
            values = dict(self._values)
        for name, text in self._helps.items():
            yield Metric(name, text, values[name])


def encode_metrics(metrics: Iterable[Metric]) -> bytes:
    """Prometheus' text exposition format, version 0.0.4."""
    lines: list[str] = []
    for metric in metrics:
        samples = metric.samples
        lines.append(f"# HELP {metric.name} {_escaped(metric.help)}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        for labels, value in (({}, samples),) if isinstance(samples, (int, float)) else samples:
            pairs = ",".join(f"{name}={_quoted(text)}" for name, text in labels.items())
            braced = f"{{{pairs}}}" if pairs else ""
            lines.append(f"{metric.name}{braced} {_number(value)}")
    return "".join(f"{line}\n" for line in lines).encode()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(text: str) -> str:
    return '"' + _escaped(text).replace('"', '\\"') + '"'


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))


def process_metrics() -> Iterator[Metric]:
    """What Prometheus' clients say of any process, under their names."""
    import psutil

    process = psutil.Process()
    with process.oneshot():
        times, memory = process.cpu_times(), process.memory_info()
        yield Metric(
            "process_cpu_seconds_total",
            "User and system time spent, in seconds.",
            times.user + times.system,
        )
        yield Metric("process_resident_memory_bytes", "Resident memory, in bytes.", memory.rss)
        yield Metric("process_open_fds", "Open file descriptors.", process.num_fds())
        yield Metric("process_threads", "Threads.", process.num_threads())
        yield Metric(
            "process_start_time_seconds",
            "When the process started, in seconds since the epoch.",
            process.create_time(),
        )
