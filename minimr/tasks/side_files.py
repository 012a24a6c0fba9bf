"""The side outputs of one attempt, and its quarantine: files of its own, like its part.

They become part of the output like the attempt's part does: its result names them, and the publish
task gives them their names. Leaving the attempt by an exception leaves no file.
"""

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, TypeAlias

import msgspec
import xxhash

from minigfs.errors import MinigfsError
from minimr.errors import JobUsageError
from minimr.messages import Part
from minimr.plan.naming import attempts_url, join_url
from minimr.side_outputs import writing_sides
from minimr.tasks.context import AttemptContext
from minimr.tasks.failures import OutputFailed

__all__ = ["QUARANTINE", "AttemptSides", "HeldWrite", "attempt_sides"]

QUARANTINE = "_quarantine"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FLUSH_BYTES = 1 << 20


class _SideFile:
    """Is there once something was kept of it, be it nothing."""

    def __init__(self, sides: "AttemptSides", name: str) -> None:
        context = sides.context
        self._sides = sides
        self._name = name
        stem = context.assignment.attempt.file_stem
        self.url = join_url(attempts_url(context.spec.staging), f"{stem}.{name}")
        self._file: IO[bytes] | None = None
        self._pending = bytearray()
        self._digest = xxhash.xxh3_64()
        self._size_bytes = self._record_count = 0

    @property
    def is_there(self) -> bool:
        return self._file is not None

    def write(self, content: bytes) -> None:
        held = self._sides.held
        if held is None:
            self.keep(content)
        else:
            held.append((self, bytes(content)))

    def keep(self, content: bytes) -> None:
        if self._file is None:
            try:
                self._file = self._sides.context.storage.open_output(self.url)
            except (MinigfsError, OSError) as error:
                raise self._failed(error) from error
        self._pending += content
        self._record_count += content.count(b"\n")
        if len(self._pending) >= _FLUSH_BYTES:
            self._flush(self._file)

    def _flush(self, file: IO[bytes]) -> None:
        content = bytes(self._pending)
        self._pending.clear()
        self._digest.update(content)
        self._size_bytes += len(content)
        view = memoryview(content)
        try:
            while view:
                written = file.write(view)
                view = view[written:]
        except (MinigfsError, OSError) as error:
            raise self._failed(error) from error

    def _failed(self, error: MinigfsError | OSError) -> OutputFailed:
        return OutputFailed(f"cannot write {self.url}: {error}")

    def finish(self) -> Part:
        assert self._file is not None
        self._flush(self._file)
        try:
            self._file.close()
        except (MinigfsError, OSError) as error:
            raise self._failed(error) from error
        attempt = self._sides.context.assignment.attempt
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

    def discard(self) -> None:
        assert self._file is not None
        with suppress(MinigfsError, OSError):
            self._file.close()
        with suppress(MinigfsError, OSError):
            self._sides.context.storage.remove(self.url)


def _as_utf8(text: str) -> str:
    """User code may make text of bytes that are not UTF-8; JSON cannot hold what comes of it."""
    return text.encode("utf-8", "backslashreplace").decode()


HeldWrite: TypeAlias = tuple[_SideFile, bytes]


class AttemptSides:
    """Opens a file when it is first asked for. ``parts`` describes them all once they are done."""

    def __init__(self, context: AttemptContext) -> None:
        self.context = context
        self.held: list[HeldWrite] | None = None
        self._files: dict[str, _SideFile] = {}
        self.parts: tuple[Part, ...] = ()

    @contextmanager
    def held_in(self, writes: list[HeldWrite]) -> Iterator[None]:
        """Have what is written in this context added to ``writes``, for whoever keeps it later."""
        self.held = writes
        try:
            yield
        finally:
            self.held = None

    def file(self, name: str) -> _SideFile:
        if not _NAME.fullmatch(name) or name.startswith("part-"):
            raise JobUsageError(
                f"side output {name!r}: use up to 64 letters, digits, '.', '_' and '-', and "
                "another name than the parts of the output"
            )
        file = self._file(name)
        if not file.is_there:
            file.write(b"")
        return file

    def quarantine(self, *, url: str, offset: int, record: object, reason: str) -> None:
        """Set a record aside that the user's function cannot stand."""
        line: dict[str, object] = {"url": url, "offset": offset, "reason": _as_utf8(reason)}
        if isinstance(record, bytes):
            line["record"] = record.decode("utf-8", "backslashreplace")
            line["raw"] = base64.b64encode(record).decode()
        else:
            line["record"] = _as_utf8(repr(record))
        self._file(QUARANTINE).keep(msgspec.json.encode(line) + b"\n")

    def _file(self, name: str) -> _SideFile:
        if name not in self._files:
            self._files[name] = _SideFile(self, name)
        return self._files[name]

    def finish(self) -> None:
        self.parts = tuple(self._files[name].finish() for name in sorted(self._there()))

    def discard(self) -> None:
        for name in self._there():
            self._files[name].discard()

    def _there(self) -> list[str]:
        return [name for name, file in self._files.items() if file.is_there]


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
