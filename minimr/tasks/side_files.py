"""The side outputs of one attempt, and its quarantine: files of its own, like its part.

They become part of the output like the attempt's part does: its result names them, and the publish
task gives them their names. Leaving the attempt by an exception leaves no file.
"""

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

import msgspec
import xxhash

from minigfs.errors import MinigfsError
from minimr.errors import JobUsageError
from minimr.messages import Part
from minimr.plan.naming import attempts_url, join_url
from minimr.side_outputs import writing_sides
from minimr.tasks.context import AttemptContext
from minimr.tasks.failures import OutputFailed

__all__ = ["QUARANTINE", "AttemptSides", "attempt_sides"]

QUARANTINE = "_quarantine"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FLUSH_BYTES = 1 << 20


class _SideFile:
    def __init__(self, file: IO[bytes], name: str, url: str) -> None:
        self._file = file
        self._name = name
        self.url = url
        self._pending = bytearray()
        self._digest = xxhash.xxh3_64()
        self._size_bytes = self._record_count = 0

    def write(self, content: bytes) -> None:
        self._pending += content
        self._record_count += content.count(b"\n")
        if len(self._pending) >= _FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        content = bytes(self._pending)
        self._pending.clear()
        self._digest.update(content)
        self._size_bytes += len(content)
        view = memoryview(content)
        try:
            while view:
                written = self._file.write(view)
                view = view[written:]
        except (MinigfsError, OSError) as error:
            raise OutputFailed(f"cannot write {self.url}: {error}") from error

    def finish(self, context: AttemptContext) -> Part:
        self._flush()
        try:
            self._file.close()
        except (MinigfsError, OSError) as error:
            raise OutputFailed(f"cannot write {self.url}: {error}") from error
        attempt = context.assignment.attempt
        suffix = ".jsonl" if self._name == QUARANTINE else ""
        return Part(
            name=f"{self._name}-{attempt.task.phase.value[0]}-{attempt.task.index:05d}{suffix}",
            attempt_name=self.url.rpartition("/")[2],
            size_bytes=self._size_bytes,
            xxh3=self._digest.hexdigest(),
            record_count=self._record_count,
            min_key=None,
            max_key=None,
            attempt=attempt,
        )

    def discard(self, context: AttemptContext) -> None:
        with suppress(MinigfsError, OSError):
            self._file.close()
        with suppress(MinigfsError, OSError):
            context.storage.remove(self.url)


class AttemptSides:
    """Opens a file when it is first asked for. ``parts`` describes them all once they are done."""

    def __init__(self, context: AttemptContext) -> None:
        self._context = context
        self._files: dict[str, _SideFile] = {}
        self.parts: tuple[Part, ...] = ()

    def file(self, name: str) -> _SideFile:
        if not _NAME.fullmatch(name) or name.startswith("part-"):
            raise JobUsageError(
                f"side output {name!r}: use up to 64 letters, digits, '.', '_' and '-', and "
                "another name than the parts of the output"
            )
        return self._file(name)

    def quarantine(self, *, url: str, offset: int, record: object, reason: str) -> None:
        """Set a record aside that the user's function cannot stand."""
        line: dict[str, object] = {"url": url, "offset": offset, "reason": reason}
        if isinstance(record, bytes):
            line["record"] = record.decode("utf-8", "backslashreplace")
            line["raw"] = base64.b64encode(record).decode()
        else:
            line["record"] = repr(record)
        self._file(QUARANTINE).write(msgspec.json.encode(line) + b"\n")

    def _file(self, name: str) -> _SideFile:
        if name not in self._files:
            context = self._context
            stem = context.assignment.attempt.file_stem
            url = join_url(attempts_url(context.spec.staging), f"{stem}.{name}")
            try:
                file = context.storage.open_output(url)
            except (MinigfsError, OSError) as error:
                raise OutputFailed(f"cannot write {url}: {error}") from error
            self._files[name] = _SideFile(file, name, url)
        return self._files[name]

    def finish(self) -> None:
        self.parts = tuple(self._files[name].finish(self._context) for name in sorted(self._files))

    def discard(self) -> None:
        for file in self._files.values():
            file.discard(self._context)


@contextmanager
def attempt_sides(context: AttemptContext) -> Iterator[AttemptSides]:
    """The attempt's side outputs; ``parts`` is there after the block."""
    sides = AttemptSides(context)
    try:
        with writing_sides(sides):
            yield sides
        sides.finish()
    except BaseException:
        sides.discard()
        raise
