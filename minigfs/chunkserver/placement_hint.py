"""A hint to ext4: keep the files of a chunkserver away from those that others delete.

ext4 makes a file near its directory, and a directory near its parent. Without a journal it looks,
for each new file, one by one at all inodes of that neighbourhood that were freed in the last
minutes: beside others who make and delete thousands of files, making one takes half a millisecond
instead of a twentieth. A directory that is marked as the top of a hierarchy (``chattr +T``) has its
subdirectories spread over the disk. Other file systems know no such mark, and need none.
"""

import array
import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path

__all__ = ["spread_below"]

# FS_IOC_GETFLAGS and FS_IOC_SETFLAGS of linux/fs.h, which name a long and take an int.
_LONG_BYTES = struct.calcsize("l")
_GET_FLAGS = 0x80000000 | _LONG_BYTES << 16 | ord("f") << 8 | 1
_SET_FLAGS = 0x40000000 | _LONG_BYTES << 16 | ord("f") << 8 | 2
_TOP_OF_HIERARCHY = 0x00020000  # FS_TOPDIR_FL


def spread_below(directory: Path) -> None:
    """Have subdirectories that are made from now on spread over the disk, where that can be."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flags = array.array("i", [0])
            fcntl.ioctl(descriptor, _GET_FLAGS, flags)
            flags[0] |= _TOP_OF_HIERARCHY
            fcntl.ioctl(descriptor, _SET_FLAGS, flags)
        finally:
            os.close(descriptor)
