"""The one place that knows where a URL leads: files of this machine directly, all else by fsspec.

Local files (``file:///path``, or a bare path) never import fsspec: opening one costs microseconds,
and a small local job should cost no more than its own work. Everything else is looked up by
fsspec's registry, so any file system installed there works. Failures are ``OSError``, as from
``open``; `JobUsageError` if nothing knows the protocol.
"""

import glob
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from minimr.errors import JobUsageError, OutputExists
from minimr.formats.kept_input import KeptInput
from minimr.formats.rename import exchange, rename_exclusive

__all__ = ["Entry", "Location", "Storage", "absolute_url", "is_local", "is_text", "local_path"]

_LOCAL_PREFIX = "file://"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name: what `Storage.list_directory` and `Storage.entry` tell about it."""

    url: str
    size_bytes: int
    is_directory: bool
    is_special: bool = False  # a pipe or a device: it has no size and can be read only once

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Bytes ``[start, start + length)`` of a file have a copy on each of ``hosts``."""

    start: int
    length: int
    hosts: tuple[str, ...]


def absolute_url(location: str) -> str:
    """A URL that means the same in every process: bare and relative paths become ``file://``.

    `JobUsageError` for an empty one: it would stand for the working directory, and is a variable of
    a shell that was never set.
    """
    if not location:
        raise JobUsageError("a path or URL is empty: name a file or a directory")
    scheme, separator, rest = location.partition("://")
    if not separator:
        return _LOCAL_PREFIX + os.path.normpath(_expanded(location).absolute())
    if scheme == "file":
        return _LOCAL_PREFIX + os.path.normpath("/" + rest.lstrip("/"))
    if scheme == "minigfs":  # there, too, one file has one URL: runs of slashes mean nothing
        authority, _, path = rest.partition("/")
        return f"{scheme}://{authority}/" + "/".join(part for part in path.split("/") if part)
    return location.rstrip("/") if rest.strip("/") else location


def is_local(url: str) -> bool:
    return url.startswith(_LOCAL_PREFIX) or "://" not in url


def is_text(url: str) -> bool:
    """Whether a URL can travel and be shown; a local name may be any bytes."""
    try:
        url.encode()
    except UnicodeEncodeError:
        return False
    return True


def _expanded(location: str) -> Path:
    try:
        return Path(location).expanduser()
    except RuntimeError:  # ~name of nobody is a name like others
        return Path(location)


def local_path(url: str) -> Path:
    """The path of a local URL; a bare path is its own."""
    assert is_local(url)
    return Path(url.removeprefix(_LOCAL_PREFIX))


@dataclass(frozen=True, slots=True)
class Storage:
    """All file systems a job can name.

    ``options`` gives constructor arguments per fsspec protocol (``{"minigfs": {"home": ...}}``); a
    protocol without options finds its own configuration. ``kept`` is where
    `borrow_input` leaves the last file; None: nowhere.
    """

    options: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    kept: KeptInput | None = None

    def entry(self, url: str) -> Entry | None:
        """What is at ``url``; None if there is nothing. An unreachable store raises."""
        if is_local(url):
            return _local_entry(url)
        fs, path = self._resolve(url)
        try:
            return _fsspec_entry(fs, url, fs.info(path))
        except FileNotFoundError:
            return None

    def exists(self, url: str) -> bool:
        return self.entry(url) is not None

    def list_directory(self, url: str) -> list[Entry]:
        """What a directory holds, sorted by name; `FileNotFoundError` if there is none."""
        if is_local(url):
            return _list_local(url)
        fs, path = self._resolve(url)
        entries = [
            _fsspec_entry(fs, _child(url, _base_name(info["name"])), info)
            for info in fs.ls(path, detail=True)
        ]
        return sorted(entries, key=lambda entry: entry.url)

    def open_input(self, url: str) -> IO[bytes]:
        """An unbuffered, seekable reader with ``readinto``."""
        if is_local(url):
            return cast("IO[bytes]", local_path(url).open("rb", buffering=0))
        fs, path = self._resolve(url)
        return cast("IO[bytes]", fs.open(path, "rb"))

    @contextmanager
    def borrow_input(self, url: str, position: int) -> Iterator[IO[bytes]]:
        """As ``open_input``, from ``position`` on; the file may be one that was open already."""
        kept = None if is_local(url) else self.kept
        taken = kept.take(url) if kept is not None else None
        file = taken if taken is not None else self.open_input(url)
        try:
            if position or taken is not None:
                file.seek(position)
            yield file
        except BaseException:
            file.close()
            raise
        if kept is not None:
            kept.keep(url, file)
        else:
            file.close()

    def open_output(self, url: str) -> IO[bytes]:
        """A writer whose file replaces what was there; missing parents are made."""
        if is_local(url):
            path = local_path(url)
            path.parent.mkdir(parents=True, exist_ok=True)
            return cast("IO[bytes]", path.open("wb", buffering=0))
        fs, path_text = self._resolve(url)
        fs.makedirs(_parent(path_text), exist_ok=True)
        return cast("IO[bytes]", fs.open(path_text, "wb"))

    def read_bytes(self, url: str) -> bytes:
        with self.open_input(url) as file:
            return file.read()

    def write_bytes(self, url: str, content: bytes, *, parents: bool = True) -> None:
        """On a crash the old content or the new is there, never a part. ``parents``: make missing
        ones; else they are an error."""
        if is_local(url):
            path = local_path(url)
            if parents:
                path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            temporary.write_bytes(content)
            temporary.replace(path)
            return
        fs, path_text = self._resolve(url)
        if parents:
            fs.makedirs(_parent(path_text), exist_ok=True)
        with fs.open(path_text, "wb") as file:
            file.write(content)

    def make_directories(self, url: str) -> None:
        if is_local(url):
            local_path(url).mkdir(parents=True, exist_ok=True)
            return
        fs, path = self._resolve(url)
        fs.makedirs(path, exist_ok=True)

    def moves_directories(self, url: str) -> bool:
        """Whether a directory moves by one atomic change."""
        return is_local(url) or _is_minigfs(self._resolve(url)[0])

    def rename(self, source: str, target: str) -> None:
        """Move one file, or a directory where directories move; atomic where that can be."""
        if is_local(source):
            local_path(source).replace(local_path(target))
            return
        fs, path = self._resolve(source)
        if _is_minigfs(fs):
            fs.rename(path, self._resolve(target)[1], replace=True)
        else:
            fs.mv(path, self._resolve(target)[1])

    def remove(self, url: str) -> None:
        """Remove a file, or a directory with all below it, for good; nothing there is fine."""
        if is_local(url):
            _remove_local(local_path(url))
            return
        fs, path = self._resolve(url)
        for_good = {"now": True} if _is_minigfs(fs) else {}
        try:
            # rm takes patterns, and we mean one name
            fs.rm(glob.escape(path), recursive=True, **for_good)
        except FileNotFoundError:
            return

    def locations(self, url: str, start: int, length: int) -> tuple[Location, ...]:
        """Which hosts store which bytes; empty for file systems that do not say."""
        if is_local(url):
            return ()
        fs, path = self._resolve(url)
        locate = getattr(fs, "locations", None)
        if locate is None:
            return ()
        return tuple(_location(found) for found in locate(path, start, length))

    def publish_directory(self, staging: str, output: str, *, overwrite: bool, last: str) -> None:
        """Make the directory ``staging`` appear as ``output`` (DESIGN 6.9).

        One atomic rename on local files and on minigfs, with an atomic exchange for ``overwrite``
        on local files. Elsewhere file by file with the one called ``last`` at the end: not atomic,
        a reader can tell a whole output by that file.

        Raises
        ------
        OutputExists
            If there is an output and ``overwrite`` is false; nothing has changed then.
        """
        if is_local(output):
            _publish_local(str(local_path(staging)), str(local_path(output)), overwrite=overwrite)
            return
        if self.exists(output):
            if not overwrite:
                raise _output_exists(output)
            self.remove(output)
        fs, source = self._resolve(staging)
        target = self._resolve(output)[1]
        if _is_minigfs(fs):
            fs.rename(source, target)
        else:
            _move_files(fs, source, target, last=last)

    def _resolve(self, url: str) -> tuple[Any, str]:
        # The package, not a module of it: while another thread imports the package, asking for a
        # part of it would hand one of the two something half initialised.
        import fsspec

        protocol = url.partition("://")[0]
        try:
            fs, path = fsspec.url_to_fs(url, **self.options.get(protocol, {}))
        except (ValueError, ImportError) as error:
            raise JobUsageError(f"{url}: no file system for {protocol!r} URLs: {error}") from error
        return fs, path


def _local_entry(url: str) -> Entry | None:
    path = local_path(url)
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _entry_of(absolute_url(url), status)


def _list_local(url: str) -> list[Entry]:
    directory = absolute_url(url)
    entries = []
    with os.scandir(local_path(url)) as found:
        for item in found:
            if item.is_symlink() and not Path(item.path).exists():
                continue  # a dangling link is no file
            if item.is_symlink() and item.is_dir() and _leads_up(Path(item.path)):
                continue  # whoever followed it would never come to an end
            entries.append(_entry_of(_child(directory, item.name), item.stat()))
    return sorted(entries, key=lambda entry: entry.url)


def _leads_up(link: Path) -> bool:
    """Whether a link leads to a directory on the way to it."""
    return any(link.samefile(directory) for directory in link.parents)


def _entry_of(url: str, status: os.stat_result) -> Entry:
    is_directory = stat.S_ISDIR(status.st_mode)
    return Entry(
        url=url,
        size_bytes=status.st_size,
        is_directory=is_directory,
        is_special=not is_directory and not stat.S_ISREG(status.st_mode),
    )


def _fsspec_entry(fs: Any, url: str, info: Mapping[str, Any]) -> Entry:
    is_directory = info["type"] == "directory"
    size = info.get("size")
    if size is None and not is_directory:
        size = fs.info(info["name"]).get("size")  # a listing, of web pages say, may leave it out
        if size is None:  # no size is not 0, which would be an input without records
            raise OSError(
                f"{url}: its file system does not tell how long it is, so it cannot be split: "
                "copy it to a file first"
            )
    return Entry(url=url.rstrip("/"), size_bytes=int(size or 0), is_directory=is_directory)


def _location(found: Any) -> Location:
    """One entry of ``fs.locations``: a mapping, as fsspec file systems answer with."""
    return Location(
        start=int(found["start"]),
        length=int(found["length"]),
        hosts=tuple(dict.fromkeys(found["hosts"])),  # replicas on one host count once,
    )


def _child(directory: str, name: str) -> str:
    return f"{directory}{name}" if directory.endswith("/") else f"{directory}/{name}"


def _base_name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _remove_local(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _output_exists(output: str) -> OutputExists:
    return OutputExists(f"{output} exists: name another output, or run with --overwrite")


def _publish_local(staging: str, output: str, *, overwrite: bool) -> None:
    try:
        rename_exclusive(staging, output)
    except FileExistsError as error:
        if not overwrite:
            raise _output_exists(output) from error
    else:
        return
    if exchange(staging, output):
        _remove_local(Path(staging))  # now the old output
        return
    _remove_local(Path(output))
    rename_exclusive(staging, output)


def _is_minigfs(fs: Any) -> bool:
    return "minigfs" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)


def _move_files(fs: Any, source: str, target: str, *, last: str) -> None:
    fs.makedirs(target, exist_ok=True)
    for name in _with_last([_base_name(path) for path in fs.ls(source, detail=False)], last):
        fs.mv(_child(source, name), _child(target, name))
    fs.rm(source, recursive=True)


def _with_last(names: Iterable[str], last: str) -> list[str]:
    return sorted(names, key=lambda name: (name == last, name))
