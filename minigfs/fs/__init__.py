"""minigfs as an fsspec file system: protocol ``minigfs``, URLs ``minigfs:///path``.

Where fsspec's defaults would hide an outage as "not there", copy instead of rename, publish half a
file or ask once per directory, this class overrides them (each override says what it avoids). It
is synchronous and lazy: making one opens no connection and reads no file, sockets live in
`minigfs.client`'s pool and never in an instance, so instances are cheap to pickle, to cache and to
carry over a fork. Listings are never cached.
"""

import fsspec  # noqa: F401 - whole: a thread that imports it meanwhile must not meet parts of it

from minigfs.fs.filesystem import MinigfsFileSystem

__all__ = ["MinigfsFileSystem"]
