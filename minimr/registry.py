"""Find the job a user names: installed, in a file, or in a module.

``NAME``                   an installed job (entry-point group ``minimr.jobs``)
``path/to/file.py:NAME``   an object of a file
``package.module:NAME``    an object of an importable module

The object is a ``minimr.Job``, or a factory: a function that takes the ``--set`` options as one
``Mapping[str, str]`` and returns a ``Job``.
"""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from minigfs.errors import MinigfsError
from minimr.errors import UnknownJob, UnreadableJob
from minimr.job import Job

__all__ = ["installed_jobs", "load_job", "modules_by_value"]

_GROUP = "minimr.jobs"  # of entry points, and the package of the standard jobs
_from_files: list[ModuleType] = []


def installed_jobs() -> tuple[str, ...]:
    """The names of the installed jobs, sorted."""
    from importlib.metadata import entry_points

    return tuple(sorted({entry.name for entry in entry_points(group=_GROUP)}))


def modules_by_value() -> tuple[ModuleType, ...]:
    """Modules that exist on this machine only: their functions travel to executors by value."""
    return tuple(_from_files)


def load_job(reference: str, settings: Mapping[str, str]) -> Job:
    """The job that ``reference`` names, built with ``settings``.

    Raises
    ------
    UnknownJob
        Nothing has that name.
    UnreadableJob
        The file or module cannot be imported, or the object is neither a job nor a factory.
    JobUsageError
        The job refuses the settings.
    """
    found = _find(reference)
    if isinstance(found, Job):
        if settings:
            raise UnreadableJob(
                f"job {reference!r} is a Job object and takes no settings: drop --set, or make it "
                "a function of one mapping that returns a Job"
            )
        return found
    if not callable(found):
        raise UnreadableJob(
            f"{reference!r} is a {type(found).__name__}: it must be a minimr.Job, or a function of "
            "one mapping that returns one"
        )
    try:
        job = found(dict(settings))
    except MinigfsError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's function raises
        raise UnreadableJob(f"{reference!r} raised {_one_line(error)}") from error
    if not isinstance(job, Job):
        raise UnreadableJob(
            f"{reference!r} returned a {type(job).__name__}: a job factory returns a minimr.Job"
        )
    return job


def _find(reference: str) -> object:
    location, colon, name = reference.rpartition(":")
    if not colon:
        return _installed(reference)
    module = _load_file(Path(location)) if location.endswith(".py") else _load_module(location)
    try:
        return getattr(module, name)
    except AttributeError:
        names = sorted(n for n, value in vars(module).items() if isinstance(value, Job))
        hint = f"; its jobs are: {', '.join(names)}" if names else ""
        raise UnknownJob(f"{location} has no {name!r}{hint}") from None


def _installed(name: str) -> object:
    standard = _standard(name)
    if standard is not None:
        return standard
    from importlib.metadata import entry_points

    for entry in entry_points(group=_GROUP, name=name):
        try:
            return entry.load()
        except (ImportError, AttributeError) as error:
            raise UnreadableJob(f"installed job {name!r} cannot be loaded: {error}") from error
    if name.endswith(".py"):
        raise UnknownJob(f"{name}: say which object of the file is the job, as in {name}:job")
    raise UnknownJob(
        f"no job is called {name!r}: installed are {', '.join(installed_jobs())}; "
        "your own: path/to/file.py:NAME or package.module:NAME"
    )


def _standard(name: str) -> object | None:
    """The job of that name that comes with minimr, found where its entry point would lead to.

    Asking every installed distribution for its entry points costs a small job 40 ms.
    """
    if not all(word.isidentifier() for word in name.split("-")):
        return None
    module_name = f"{_GROUP}.{name.replace('-', '_')}"
    if importlib.util.find_spec(module_name) is None:
        return None
    return getattr(importlib.import_module(module_name), "job", None)


def _load_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (
        Exception,
        SystemExit,
    ) as error:  # whatever the user's module raises
        raise UnreadableJob(f"module {name!r} cannot be imported: {_one_line(error)}") from error


def _load_file(path: Path) -> ModuleType:
    """Import a file under a name of its own, with its folder on the path as a script would have.

    What it imports from that folder travels by value as well: executors do not have the folder.
    """
    if not path.is_file():
        raise UnreadableJob(f"job file {str(path)!r} does not exist or is no file")
    folder = path.resolve().parent
    spec = importlib.util.spec_from_file_location(f"minimr_job_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = set(sys.modules)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(folder))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's file raises
        del sys.modules[spec.name]
        raise UnreadableJob(f"job file {str(path)!r} cannot be read: {_one_line(error)}") from error
    finally:
        sys.path.remove(str(folder))
    _from_files.append(module)
    _from_files.extend(
        sys.modules[name]
        for name in sorted(set(sys.modules) - before - {spec.name})
        if _stands_in(sys.modules[name], folder)
    )
    return module


def _stands_in(module: ModuleType, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve().parent == folder


def _one_line(error: BaseException) -> str:
    text = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError | ImportError) or not frames:
        return text
    return f"{text} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"
