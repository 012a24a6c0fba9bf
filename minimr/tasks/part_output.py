"""The part file an attempt writes: a file of its own beside the job's staging directory.

Nothing that becomes the output is written by an attempt, so a late one that nobody waits for can
never add to, or show up in, an output.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from minigfs.errors import MinigfsError
from minimr.errors import TaskError
from minimr.formats.part_writer import PartWriter
from minimr.messages import MapAssignment, Part
from minimr.outputs import CustomWriter, OutputFormat, part_suffix
from minimr.pairs import Pairs, check_same_types, example_of
from minimr.plan.naming import attempts_url, join_url, part_name
from minimr.tasks.context import AttemptContext
from minimr.tasks.failures import OutputFailed
from minimr.tasks.user_code import blame

__all__ = ["PartOutput", "part_output"]


class PartOutput:
    """Takes pairs; ``part`` describes the finished file."""

    def __init__(
        self, writer: PartWriter, url: str, chosen: OutputFormat, batch_bytes: int
    ) -> None:
        self._writer = writer
        self._batch_bytes = batch_bytes  # encoders copy what they get several times
        self._url = url
        self._format = chosen
        self.part: Part | None = None
        self._example: Pairs | None = None  # the first pair: the others have its types

    @property
    def is_empty(self) -> bool:
        return self._example is None

    def write(self, pairs: Pairs) -> None:
        """Append them; no pairs at all still tell the types of a part that gets none."""
        if not pairs.num_rows:
            if self._example is None:
                with self.naming():
                    self._writer.write(pairs)
            return
        if self._example is None:
            self._example = example_of(pairs)
        check_same_types(self._example, pairs)
        row_count = max(1, pairs.num_rows * self._batch_bytes // max(pairs.nbytes, 1))
        with self.naming():
            for start in range(0, pairs.num_rows, row_count):
                self._writer.write(pairs.slice(start, row_count))

    def naming(self) -> AbstractContextManager[None]:
        """What fails in the block is named as a failure of this file, or of the user's format."""
        return _naming(self._url, self._format)


@contextmanager
def part_output(context: AttemptContext, index: int) -> Iterator[PartOutput]:
    """Part ``index`` of the output. Leaving the block by an exception leaves no file."""
    attempt = context.assignment.attempt
    attempt_name = attempt.file_stem
    url = join_url(attempts_url(context.spec.staging), attempt_name)
    chosen, compression = context.output_format, context.compression
    with _naming(url, chosen):
        file = context.storage.open_output(url)
        writer = PartWriter(file, chosen, compression)
    output = PartOutput(writer, url, chosen, context.memory.output_bytes)
    try:
        with file:
            yield output
            with output.naming():
                summary = writer.finish()
                file.close()  # here a file system may find that it cannot keep what it took
    except BaseException:
        with suppress(MinigfsError, OSError):  # what went wrong first is what counts
            context.storage.remove(url)
        raise
    is_map = isinstance(context.assignment, MapAssignment)
    output.part = Part(
        name=part_name("m" if is_map else "r", index) + part_suffix(chosen, compression),
        attempt_name=attempt_name,
        size_bytes=summary.size_bytes,
        xxh3=summary.xxh3,
        record_count=summary.record_count,
        min_key=summary.min_key,
        max_key=summary.max_key,
        attempt=attempt,
    )


@contextmanager
def _naming(url: str, chosen: OutputFormat) -> Iterator[None]:
    try:
        yield
    except TaskError:
        raise
    except (MinigfsError, OSError) as error:
        raise OutputFailed(f"cannot write {url}: {error}") from error
    except Exception as error:
        if isinstance(chosen, CustomWriter):
            blame(f"output_format {type(chosen).__name__}", error)
        raise
