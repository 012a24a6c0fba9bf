"""minigfs: a mini Google File System, usable alone.

Chunks of 64 MiB on chunkservers, replicated and checksummed; names on a master whose every change
is logged before it is applied. See ARCHITECTURE.md for the map of the packages.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
