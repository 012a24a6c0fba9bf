"""A job's files, made ready for its tasks (`minimr.broadcast`)."""

import xxhash

from minimr.errors import InputMissing, JobUsageError
from minimr.formats.storage import Storage, absolute_url, is_local
from minimr.job import Job
from minimr.messages import BroadcastFile, JobSpec
from minimr.plan.naming import join_url

__all__ = ["broadcast_files"]

_DIRECTORY = "_files"  # in the staging directory, with which it goes


def broadcast_files(job: Job, spec: JobSpec, storage: Storage) -> tuple[BroadcastFile, ...]:
    """Where tasks find the files. Those of this machine are copied to where the output will be, if
    that is elsewhere: workers of other machines can read there."""
    found: dict[str, BroadcastFile] = {}
    for location in job.files:
        url = absolute_url(location)
        name = url.rpartition("/")[2]
        if name in found:
            raise JobUsageError(f"job {job.name!r}: two of its files are called {name!r}")
        try:
            content = storage.read_bytes(url)
        except OSError as error:
            raise InputMissing(
                f"file {url} of job {job.name!r}: {error.strerror or error}"
            ) from error
        if is_local(url) and not is_local(spec.staging):
            url = join_url(spec.staging, f"{_DIRECTORY}/{name}")
            storage.write_bytes(url, content)
        found[name] = BroadcastFile(name, url, xxhash.xxh3_64_hexdigest(content))
    return tuple(found.values())
