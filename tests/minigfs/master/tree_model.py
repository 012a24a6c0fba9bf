"""An independent file system for tests: a dict of paths, and commands written the obvious way."""

from minigfs.errors import (
    DirectoryNotEmpty,
    FileExists,
    FileMissing,
    InvalidPath,
    IsDirectory,
    MinigfsError,
    NotDirectory,
)

__all__ = ["TreeModel"]


class TreeModel:
    """``entries`` maps each path to a file's token, or to None for a directory."""

    def __init__(self) -> None:
        self.entries: dict[str, object | None] = {"/": None}

    def below(self, path: str) -> list[str]:
        prefix = path if path == "/" else path + "/"
        return [p for p in self.entries if p.startswith(prefix) and p != "/"]

    def is_file(self, path: str) -> bool:
        return self.entries.get(path) is not None

    def is_dir(self, path: str) -> bool:
        return path in self.entries and self.entries[path] is None

    @staticmethod
    def ancestors(path: str) -> list[str]:
        parts = path.split("/")[1:-1]
        return ["/" + "/".join(parts[: i + 1]) for i in range(len(parts))]

    def check_no_file_above(self, path: str) -> None:
        if any(self.is_file(a) for a in self.ancestors(path)):
            raise NotDirectory(path)

    def make_directory(self, path: str, *, parents: bool, exist_ok: bool) -> None:
        self.check_no_file_above(path)
        if self.is_file(path) or (path in self.entries and not exist_ok):
            raise FileExists(path)
        if path in self.entries:
            return
        missing = [a for a in self.ancestors(path) if a not in self.entries]
        if missing and not parents:
            raise FileMissing(path)
        self.entries.update(dict.fromkeys((*missing, path)))

    def check_publish(self, path: str, *, exclusive: bool) -> None:
        self.check_no_file_above(path)
        if self.is_dir(path):
            raise IsDirectory(path)
        if exclusive and path in self.entries:
            raise FileExists(path)

    def publish(self, path: str, token: object, *, exclusive: bool) -> None:
        self.check_publish(path, exclusive=exclusive)
        for ancestor in self.ancestors(path):
            self.entries.setdefault(ancestor, None)
        self.entries[path] = token

    def rename(self, source: str, target: str, *, replace: bool) -> None:
        self.check_no_file_above(source)
        if source not in self.entries:
            raise FileMissing(source)
        if source == "/" or target == "/":
            raise InvalidPath(source)
        if source == target:
            return
        if self.is_dir(source) and target.startswith(source + "/"):
            raise InvalidPath(target)
        self.check_no_file_above(target)
        if any(a not in self.entries for a in self.ancestors(target)):
            raise FileMissing(target)
        if target in self.entries:
            if self.is_dir(source):
                raise FileExists(target)
            if self.is_dir(target):
                raise IsDirectory(target)
            if not replace:
                raise FileExists(target)
        moved = {target: self.entries.pop(source)}
        for path in [p for p in self.entries if p.startswith(source + "/")]:
            moved[target + path[len(source) :]] = self.entries.pop(path)
        self.entries.update(moved)

    def remove(self, path: str, *, recursive: bool) -> tuple[int, int]:
        self.check_no_file_above(path)
        if path not in self.entries:
            raise FileMissing(path)
        if path == "/":
            raise InvalidPath(path)
        if self.is_dir(path) and self.below(path) and not recursive:
            raise DirectoryNotEmpty(path)
        gone = [path, *(self.below(path) if self.is_dir(path) else [])]
        files = sum(self.is_file(p) for p in gone)
        for p in gone:
            del self.entries[p]
        return files, len(gone) - files

    def outcome(self, change: object) -> str | None:
        """Run a change; the wire code of its refusal, None if it was made."""
        assert callable(change)
        try:
            change()
        except MinigfsError as refusal:
            return refusal.code
        return None
