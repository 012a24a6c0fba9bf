"""The publish attempt: committed parts get their names, a manifest is written, and the staging
directory becomes the output by one rename (DESIGN 5.4, 6.9).

It may stop anywhere and run again: a part that has its name already is left alone, and an output
whose manifest carries this job's id is this job's, published.

Two attempts may run at the same time, one of them late. So the directory is *claimed* by a rename
to a name of the attempt's own before it becomes the output, and an attempt that comes later takes
what is claimed back by another rename: then the late one has nothing left that it could publish.
"""

from collections.abc import Container

import msgspec
import xxhash

from minigfs.errors import MinigfsError
from minimr.errors import JobUsageError
from minimr.ids import TaskPhase
from minimr.messages import (
    Part,
    PublishAssignment,
    PublishResult,
    Receipt,
)
from minimr.plan.naming import MANIFEST_NAME, attempts_url, join_url, working_urls
from minimr.tasks.context import AttemptContext
from minimr.tasks.empty_parts import parts_written_anew
from minimr.tasks.failures import OutputFailed

__all__ = ["run_publish"]

_MANIFEST_FORMAT = 1


def run_publish(context: AttemptContext, assignment: PublishAssignment) -> PublishResult:
    spec = context.spec
    _check_conservation(assignment)
    try:
        _take_back_claims(context)
        anew = parts_written_anew(context, assignment.parts)
        changed = {part.name: part for part, _ in anew}
        parts = tuple(changed.get(part.name, part) for part in assignment.parts)
        manifest = _manifest(context, assignment, parts)
        result = PublishResult(
            manifest_xxh3=xxhash.xxh3_64_hexdigest(manifest), parts=tuple(changed.values())
        )
        if _is_published(context):
            for url in working_urls(spec.staging):
                context.storage.remove(url)
            return result
        context.storage.make_directories(spec.staging)
        for part, content in anew:
            url = join_url(spec.staging, part.name)
            context.storage.write_bytes(url, content, parents=False)
        _name_parts(context, (*parts, *assignment.sides), written=changed)
        manifest_url = join_url(spec.staging, MANIFEST_NAME)
        context.storage.write_bytes(manifest_url, manifest, parents=False)
        context.check_cancelled()
        if not spec.published_by_master:
            context.storage.publish_directory(
                _claimed(context, assignment),
                spec.output,
                overwrite=spec.overwrite,
                last=MANIFEST_NAME,
            )
        context.storage.remove(attempts_url(spec.staging))
    except JobUsageError:
        raise
    except (MinigfsError, OSError) as error:
        raise OutputFailed(f"cannot publish {spec.output}: {error}") from error
    return result


def _check_conservation(assignment: PublishAssignment) -> None:
    receipt = assignment.receipt
    if receipt is not None and receipt.map_output != receipt.reduce_input:
        raise OutputFailed(
            f"records were lost or doubled between map and reduce, so nothing is published: maps "
            f"handed on {receipt.map_output}, reduces read {receipt.reduce_input} (a fault of "
            "minimr: report it)"
        )


def _claimed(context: AttemptContext, assignment: PublishAssignment) -> str:
    """The staging directory under a name that is this attempt's alone."""
    staging = context.spec.staging
    if not context.storage.moves_directories(staging):
        return staging
    claim = join_url(attempts_url(staging), assignment.attempt.file_stem)
    context.storage.rename(staging, claim)
    return claim


def _take_back_claims(context: AttemptContext) -> None:
    """What an earlier attempt had claimed becomes the staging directory again."""
    storage, staging = context.storage, context.spec.staging
    if not storage.moves_directories(staging):
        return  # nothing is ever claimed there
    attempts = attempts_url(staging)
    storage.make_directories(attempts)  # a job without output has none yet
    for entry in storage.list_directory(attempts):
        if entry.is_directory and entry.name.startswith(f"{TaskPhase.PUBLISH.value[0]}-"):
            storage.rename(entry.url, staging)


def _is_published(context: AttemptContext) -> bool:
    url = join_url(context.spec.output, MANIFEST_NAME)
    if not context.storage.exists(url):
        return False
    try:
        found = msgspec.json.decode(context.storage.read_bytes(url))
    except msgspec.DecodeError:
        return False  # somebody else's file
    return isinstance(found, dict) and found.get("job_id") == context.spec.job_id


def _name_parts(
    context: AttemptContext, parts: tuple[Part, ...], *, written: Container[str]
) -> None:
    """The staging directory holds the parts under their names, and nothing else; those that are
    ``written`` are there."""
    storage, staging = context.storage, context.spec.staging
    attempts = attempts_url(staging)
    for part in parts:
        if part.name in written:
            continue
        source, target = join_url(attempts, part.attempt_name), join_url(staging, part.name)
        if storage.exists(source):
            storage.rename(source, target)
            continue
        named = storage.entry(target)
        if named is None or named.size_bytes != part.size_bytes:
            raise OutputFailed(
                f"{source} is gone, it held {part.name} of job {context.spec.job_id}: "
                "somebody removed it; run the job again"
            )
    # A manifest that another attempt wrote stays: this one may be the late one of the two, and the
    # job may be published by the other before this one writes the same bytes again.
    names = {MANIFEST_NAME, *(part.name for part in parts)}
    for entry in storage.list_directory(staging):
        if entry.name not in names:
            storage.remove(entry.url)


def _manifest(
    context: AttemptContext, assignment: PublishAssignment, parts: tuple[Part, ...]
) -> bytes:
    """The same bytes whenever the same attempts are published."""
    spec = context.spec
    content = {
        "format": _MANIFEST_FORMAT,
        "job_id": spec.job_id,
        "name": spec.name,
        "inputs": spec.inputs,
        "settings": dict(spec.settings),
        "output_format": type(context.output_format).__name__.lower(),
        "code_fingerprint": spec.code_fingerprint,
        "input_fingerprint": spec.input_fingerprint,
        "receipt": _described_receipt(assignment.receipt),
        "counters": dict(sorted(assignment.counters.items())),
        "parts": [_described(part) for part in parts],
        "sides": [_described(side) for side in assignment.sides],
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def _described_receipt(receipt: Receipt | None) -> dict[str, object] | None:
    if receipt is None:
        return None
    amounts = {
        "input": receipt.input,
        "map_output": receipt.map_output,
        "reduce_input": receipt.reduce_input,
        "output": receipt.output,
    }
    return {
        name: {"records": one.records, "bytes": one.bytes, "sum": f"{one.sum:016x}"}
        for name, one in amounts.items()
    }


def _described(part: Part) -> dict[str, object]:
    return {
        "name": part.name,
        "size_bytes": part.size_bytes,
        "xxh3": part.xxh3,
        "records": part.record_count,
        "min_key": part.min_key,
        "max_key": part.max_key,
        "attempt": str(part.attempt),
    }
