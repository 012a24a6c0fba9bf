"""Parts without rows, of a format whose files say what their columns are.

Behind a function nothing tells the task that writes such a part what types its rows would have had;
once all tasks are done the other parts do. Readers of a directory take the types of the first file
for those of all, so the publish task writes the empty ones anew. Whichever attempt does it writes
the same bytes.
"""

from collections.abc import Iterator, Sequence

import msgspec
import xxhash

from minimr.agg import Aggregation
from minimr.formats.table_output import read_types, table_without_rows
from minimr.messages import Part
from minimr.outputs import ArrowIpc, Parquet
from minimr.plan.naming import attempts_url, join_url
from minimr.tasks.context import AttemptContext

__all__ = ["parts_written_anew"]


def parts_written_anew(context: AttemptContext, parts: Sequence[Part]) -> list[tuple[Part, bytes]]:
    """The parts that are to have other bytes than their tasks wrote, and those bytes."""
    chosen, compression = context.output_format, context.compression
    if not isinstance(chosen, Parquet | ArrowIpc) or isinstance(context.job.reduce, Aggregation):
        return []
    empty = [part for part in parts if not part.record_count]
    example = next((part for part in parts if part.record_count), None)
    if not empty or example is None:
        return []
    storage = context.storage
    url = next((url for url in _places(context, example) if storage.exists(url)), None)
    if url is None:
        return []  # whoever is to name it finds that out as well, and says so
    with storage.open_input(url) as file:
        types = read_types(file, chosen)
    content = table_without_rows(types, chosen, compression)
    size_bytes, xxh3 = len(content), xxhash.xxh3_64_hexdigest(content)
    return [
        (msgspec.structs.replace(part, size_bytes=size_bytes, xxh3=xxh3), content) for part in empty
    ]


def _places(context: AttemptContext, part: Part) -> Iterator[str]:
    """Where a part lies before it is named, then until it is published, then for good."""
    spec = context.spec
    yield join_url(attempts_url(spec.staging), part.attempt_name)
    yield join_url(spec.staging, part.name)
    yield join_url(spec.output, part.name)
