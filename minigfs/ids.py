"""Names for the numbers and strings that must never be mixed up (GFS section 2.3)."""

from typing import NewType

import msgspec

__all__ = [
    "ChunkHandle",
    "ChunkVersion",
    "ChunkserverId",
    "ClusterId",
    "FileId",
    "MasterId",
    "Origin",
    "SessionId",
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

SessionId = NewType("SessionId", int)
"""Session of a client with the masters: the index of the log entry that opened it, never used
again (thesis section 6.3)."""


class Origin(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Which request of which client a command is, so that a retry is not executed again.

    A session numbers its requests from 1 and gives a retry the number of the first try.
    ``answered_below`` promises that the client has the replies of all requests below it and will
    repeat none of them; they may be forgotten (thesis section 6.3).
    """

    session_id: SessionId
    sequence: int
    answered_below: int
