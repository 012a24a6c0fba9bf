"""Whose directory this is: the chunkserver's id and its cluster, made once and kept with the data.

The directory is locked for as long as the process lives, so two servers never share one.
"""

import fcntl
import os
import secrets
from pathlib import Path

import msgspec

from minigfs.errors import InvalidConfig
from minigfs.ids import ChunkserverId, ClusterId

__all__ = ["Identity", "lock_directory", "open_identity"]

_IDENTITY_FILE = "chunkserver.json"
_LOCK_FILE = "lock"


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    chunkserver_id: ChunkserverId
    cluster_id: ClusterId


def lock_directory(directory: Path) -> int:
    """Make the directory if need be and lock it; closing the descriptor gives it back."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InvalidConfig(
            f"{directory} is in use by another chunkserver: stop it, or give another --dir"
        ) from None
    return descriptor


def open_identity(directory: Path, cluster_id: str) -> Identity:
    """The identity kept in the directory; a new one, of ``cluster_id``, if there is none yet.

    Raises ``InvalidConfig`` when the directory belongs to another cluster.
    """
    path = directory / _IDENTITY_FILE
    if not path.exists():
        if not cluster_id:
            raise InvalidConfig(f"{directory} is new: name the cluster it is for (--cluster-id)")
        made = Identity(
            chunkserver_id=ChunkserverId(secrets.token_hex(8)), cluster_id=ClusterId(cluster_id)
        )
        _write_durably(path, msgspec.json.encode(made))
        return made
    try:
        known = msgspec.json.decode(path.read_bytes(), type=Identity)
    except msgspec.DecodeError as error:
        raise InvalidConfig(
            f"{path} is damaged ({error}): restore it, or use a new --dir"
        ) from error
    if cluster_id not in ("", known.cluster_id):
        raise InvalidConfig(
            f"{directory} holds chunks of cluster {known.cluster_id}, not of {cluster_id}:"
            " give the directory of this cluster, or a new one"
        )
    return known


def _write_durably(path: Path, content: bytes) -> None:
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
