"""A job's files on the machine of a task: found where they are, or brought there once."""

from pathlib import Path

import xxhash

from minigfs.errors import MinigfsError
from minimr.errors import JobUsageError
from minimr.formats.storage import is_local, local_path
from minimr.messages import BroadcastFile
from minimr.shuffle.places import job_directory
from minimr.tasks.context import AttemptContext
from minimr.tasks.failures import InputFailed

__all__ = ["TaskFiles"]

_PIECE_BYTES = 1 << 20


class TaskFiles:
    """Answers `minimr.file` for one attempt; attempts of a job on one worker share the copies."""

    def __init__(self, context: AttemptContext) -> None:
        self._context = context
        self._files = {each.name: each for each in context.spec.files}
        self._found: dict[str, Path] = {}

    def find(self, name: str) -> Path:
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    def _find(self, name: str) -> Path:
        wanted = self._files.get(name)
        if wanted is None:
            known = ", ".join(self._files) or "none"
            raise JobUsageError(f"file({name!r}): the job's files are: {known}")
        if is_local(wanted.url):
            path = local_path(wanted.url)
            self._check(wanted, path)
            return path
        directory = job_directory(self._context.scratch, self._context.spec.job_id) / "files"
        path = directory / name
        if not path.exists():
            self._bring(wanted, path)
        return path

    def _bring(self, wanted: BroadcastFile, path: Path) -> None:
        try:
            content = self._context.storage.read_bytes(wanted.url)
        except (MinigfsError, OSError) as error:
            raise InputFailed(f"cannot read {wanted.url}: {error}", wanted.url) from error
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{self._context.assignment.attempt.file_stem}")
        temporary.write_bytes(content)
        self._check(wanted, temporary)
        temporary.replace(path)

    def _check(self, wanted: BroadcastFile, path: Path) -> None:
        digest = xxhash.xxh3_64()
        try:
            with path.open("rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    digest.update(piece)
        except OSError as error:
            raise InputFailed(f"cannot read {wanted.url}: {error.strerror}", wanted.url) from error
        if digest.hexdigest() != wanted.xxh3:
            raise InputFailed(
                f"{wanted.url} has changed since the job was submitted: run the job again",
                wanted.url,
            )
