"""A job as bytes that another process can load.

What is installed travels by reference: executors import it. What exists only here travels by
value: functions of ``__main__`` (a script, a notebook), of a job file, and of the user's own
modules beside them, so that no executor ever runs or imports the user's main program.
"""

import pickle
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from types import ModuleType

from minimr.errors import JobUsageError
from minimr.job import Job
from minimr.partition import HashPartition
from minimr.registry import modules_by_value

__all__ = ["pack_job"]

_OURS = ("minimr", "minigfs")

_registry = threading.RLock()  # pickling may run user code that submits a job


def pack_job(job: Job) -> bytes:
    """The job, pickled; `JobUsageError` if it holds what cannot leave this process."""
    if all(_is_ours(name) for name in _modules_of(job)):
        return pickle.dumps(job, protocol=pickle.HIGHEST_PROTOCOL)
    import cloudpickle  # 40 ms that the standard jobs do without

    with _by_value(_local_modules(job)):
        try:
            return bytes(cloudpickle.dumps(job))
        except Exception as error:  # whatever the state of a user's object raises
            raise JobUsageError(
                f"job {job.name!r} cannot be sent to other processes: {type(error).__name__}: "
                f"{error}; make what it needs inside its functions, or run it with --processes 0"
            ) from error


@contextmanager
def _by_value(modules: list[ModuleType]) -> Iterator[None]:
    """cloudpickle's registry is one a process: the user's own entries stay, threads take turns."""
    import cloudpickle

    with _registry, ExitStack() as stack:
        registered = cloudpickle.list_registry_pickle_by_value()
        for module in modules:
            if module.__name__ not in registered:
                cloudpickle.register_pickle_by_value(module)
                stack.callback(cloudpickle.unregister_pickle_by_value, module)
        yield


def _local_modules(job: Job) -> list[ModuleType]:
    """Modules that only this process can be trusted to find."""
    found = {module.__name__: module for module in modules_by_value()}
    roots = [sys.modules.get(name) for name in _modules_of(job)]
    folders = {folder for root in roots if root is not None and (folder := _folder(root))}
    found |= {
        name: module
        for name, module in sorted(sys.modules.items())
        if name != "__main__" and isinstance(module, ModuleType) and _folder(module) in folders
    }
    return list(found.values())


def _modules_of(job: Job) -> Iterator[str]:
    partition = job.partition.by if isinstance(job.partition, HashPartition) else job.partition
    for function in (
        job.map, job.map_batches, job.combine, job.reduce, job.reduce_batches, partition,
        job.sort_values if callable(job.sort_values) else None, *_codec_functions(job),
    ):  # fmt: skip
        inner = function
        while isinstance(inner, partial):
            inner = inner.func
        if inner is not None:
            yield getattr(inner, "__module__", None) or type(inner).__module__
    for chosen in (job.input_format, job.output_format):
        if not isinstance(chosen, str):
            yield type(chosen).__module__


def _codec_functions(job: Job) -> Iterator[object]:
    for codec in (job.key_codec, job.value_codec):
        if codec is not None:
            yield codec.encode
            yield codec.decode


def _folder(module: ModuleType) -> str | None:
    """The directory of a user's own module; None for what is installed, built in, or ours."""
    if _is_ours(module.__name__):
        return None
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or file.startswith(_installed_prefixes()):
        return None
    return file.rpartition("/")[0]


def _is_ours(module_name: str) -> bool:
    return module_name.partition(".")[0] in _OURS


@cache
def _installed_prefixes() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple(paths[name] + "/" for name in ("stdlib", "platstdlib", "purelib", "platlib"))
