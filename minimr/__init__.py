"""minimr: MapReduce in Python, on files, on minigfs, on one machine or a cluster.

::

    import minimr

    def map_url(line: bytes):
        yield line.split(b" ")[6], 1

    job = minimr.Job("url-count", map=map_url, combine=minimr.agg.sum, reduce=minimr.agg.sum)
    result = minimr.run(job, input="access.log", output="out", reducers=4)

Importing this package imports nothing heavy: every name below is loaded at its first use.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minimr import agg, inputs, outputs
    from minimr.broadcast import file
    from minimr.cluster import LocalCluster
    from minimr.counters import increment
    from minimr.errors import MinimrError
    from minimr.job import Codec, Job
    from minimr.partition import HashPartition, RangePartition
    from minimr.runner import JobHandle, Result, run
    from minimr.side_outputs import side_output

__all__ = [
    "Codec",
    "HashPartition",
    "Job",
    "JobHandle",
    "LocalCluster",
    "MinimrError",
    "RangePartition",
    "Result",
    "__version__",
    "agg",
    "file",
    "increment",
    "inputs",
    "outputs",
    "run",
    "side_output",
]

__version__ = "0.1.0"

_MODULES = frozenset({"agg", "inputs", "outputs"})
_HOME_OF = {
    "HashPartition": "minimr.partition",
    "Codec": "minimr.job",
    "Job": "minimr.job",
    "JobHandle": "minimr.runner",
    "LocalCluster": "minimr.cluster",
    "MinimrError": "minimr.errors",
    "RangePartition": "minimr.partition",
    "Result": "minimr.runner",
    "file": "minimr.broadcast",
    "increment": "minimr.counters",
    "run": "minimr.runner",
    "side_output": "minimr.side_outputs",
}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(f"minimr.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'minimr' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
