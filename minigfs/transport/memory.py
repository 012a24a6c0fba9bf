"""Memory for payloads, used again instead of being given back.

A process that moves bytes allocates a megabyte or more at a time, and glibc hands such blocks back
to the kernel as soon as they are free. Taking them again costs a page fault per 4 KiB, which on
virtual machines is more than copying the bytes: reading through a chunkserver is a third faster
when both sides keep their memory.
"""

import ctypes

__all__ = ["give_back_freed_memory", "keep_freed_memory"]

_M_ARENA_MAX = -8
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES_MAX = 256 << 20  # of free memory at the top of a heap
_HEAP_BLOCK_BYTES_MAX = 32 << 20  # glibc takes no more; larger blocks are mapped and given back
_MAPPED_SHARE = 64  # of bounded memory: a larger block is mapped, and given back when it is free
_KEPT_SHARE = 16  # of bounded memory: so much stays at the top of a heap


def keep_freed_memory() -> None:
    """Tell the C library to keep what is freed for the next allocation; elsewhere do nothing."""
    _set({_M_MMAP_THRESHOLD: _HEAP_BLOCK_BYTES_MAX, _M_TRIM_THRESHOLD: _KEPT_BYTES_MAX})


def give_back_freed_memory(memory_bytes: int) -> None:
    """The opposite, for a process that may use ``memory_bytes``: what one allocation leaves behind
    must not stand in the way of the next, which may be larger. Blocks that are small beside all of
    it are kept, because taking them again costs time."""
    _set(
        {
            _M_MMAP_THRESHOLD: min(memory_bytes // _MAPPED_SHARE, _HEAP_BLOCK_BYTES_MAX),
            _M_TRIM_THRESHOLD: memory_bytes // _KEPT_SHARE,
            _M_ARENA_MAX: 2,
        }
    )


def _set(options: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for name, value in options.items():
            mallopt(name, value)
