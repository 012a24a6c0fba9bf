"""Every limit of minigfs by name, with its unit and the reason for its value."""

import msgspec

__all__ = [
    "CHECKSUM_BLOCK_BYTES",
    "DEFAULT_CHUNK_BYTES",
    "DEFAULT_REPLICATION",
    "MIN_CHUNK_BYTES",
    "FileSystemConfig",
    "TransportLimits",
]

KIB = 1024
MIB = 1024 * KIB

DEFAULT_CHUNK_BYTES = 64 * MIB  # GFS section 2.5
MIN_CHUNK_BYTES = KIB  # small enough that a test of a few kilobytes crosses many chunk borders
CHECKSUM_BLOCK_BYTES = 64 * KIB  # GFS section 5.2: one sum per 64 KiB
DEFAULT_REPLICATION = 3  # GFS section 2.3


class FileSystemConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What is fixed when a cluster is made; every later start reads it from the first log entry."""

    cluster_id: str
    chunk_bytes: int = DEFAULT_CHUNK_BYTES
    replication: int = DEFAULT_REPLICATION


class TransportLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds that a frame is held against before anything is allocated for it."""

    body_bytes_max: int = 16 * MIB  # a listing of 100,000 names, or a job of 8 MiB, with room
    payload_bytes_max: int = 16 * MIB  # a record of a quarter of a chunk; else 1 MiB or less
    handshake_timeout_ms: int = 5_000
    idle_connection_count_max: int = 64  # per address, in one pool: one for each of many threads
    idle_connection_ms_max: int = 30_000  # those that a burst left behind
    connection_count_max: int = 1024  # of one server; a bulk server has a thread for each
    running_request_count_max: int = 64  # of one connection to a control server
