"""Names for the numbers and strings that must never be mixed up (GFS section 2.3)."""

from typing import NewType

__all__ = [
    "ChunkHandle",
    "ChunkVersion",
    "ChunkserverId",
    "ClusterId",
    "FileId",
    "MasterId",
]

ChunkHandle = NewType("ChunkHandle", int)
"""64-bit, immutable, given by the master when the chunk is created, never used again."""

ChunkVersion = NewType("ChunkVersion", int)
"""Version of a chunk's replica set; counts from 1 (GFS section 4.5)."""

FileId = NewType("FileId", int)
"""Identity of a file or directory (an inode): it survives renames and is never used again."""

ChunkserverId = NewType("ChunkserverId", str)
"""Random name of a chunkserver, made with its data directory and kept in it."""

MasterId = NewType("MasterId", str)
"""Random name of a master, made with its data directory and kept in it."""

ClusterId = NewType("ClusterId", str)
"""Random name of a cluster, made by the first start; servers of another cluster are refused."""
