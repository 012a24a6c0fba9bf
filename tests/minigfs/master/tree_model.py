"""An independent file system for tests: a dict of paths, and commands written the obvious way.

The trash is a list of what was removed, with everything that lay below it; a policy a number for a
path, moved and copied and dropped with it.
"""

from dataclasses import dataclass

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


@dataclass
class Removed:
    path: str
    removed_ms: int
    until_ms: int
    order: int
    entries: dict[str, object | None]  # relative paths, "" for the thing itself
    policies: dict[str, int]


class TreeModel:
    """``entries`` maps each path to a file's token, or to None for a directory.

    ``policies`` maps directories to how long what is removed below them is kept.
    """

    def __init__(self) -> None:
        self.entries: dict[str, object | None] = {"/": None}
        self.policies: dict[str, int] = {}
        self.trash: list[Removed] = []
        self.removed_count = 0

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
        self.entries.pop(target, None)
        self.put(target, *self.cut(source))

    def cut(self, top: str) -> tuple[dict[str, object | None], dict[str, int]]:
        """Take out a thing with all below it; the paths become relative to it."""
        below = [top, *self.below(top)]
        policies = {p[len(top) :]: self.policies.pop(p) for p in below if p in self.policies}
        return {p[len(top) :]: self.entries.pop(p) for p in below}, policies

    def put(self, top: str, entries: dict[str, object | None], policies: dict[str, int]) -> None:
        self.entries.update({top + p: token for p, token in entries.items()})
        self.policies.update({top + p: kept_ms for p, kept_ms in policies.items()})

    def retention(self, path: str, default_ms: int) -> int:
        while path not in self.policies:
            if path == "/":
                return default_ms
            path = path.rpartition("/")[0] or "/"
        return self.policies[path]

    def remove(
        self, path: str, *, recursive: bool, keep_ms: int = 0, now_ms: int = 0
    ) -> tuple[int, int]:
        self.check_no_file_above(path)
        if path not in self.entries:
            raise FileMissing(path)
        if path == "/":
            raise InvalidPath(path)
        if self.is_dir(path) and self.below(path) and not recursive:
            raise DirectoryNotEmpty(path)
        kept_ms = self.retention(path, keep_ms) if keep_ms else 0
        if self.is_dir(path) and not self.below(path):
            kept_ms = 0
        entries, policies = self.cut(path)
        if kept_ms:
            self.removed_count += 1
            until_ms = now_ms + kept_ms
            kept = Removed(path, now_ms, until_ms, self.removed_count, entries, policies)
            self.trash.append(kept)
        files = sum(token is not None for token in entries.values())
        return files, len(entries) - files

    def undelete(self, path: str, target: str) -> None:
        found = [one for one in self.trash if self.place_in(one, path) in one.entries]
        if path == "/" or not found:
            raise FileMissing(path)
        latest = max(found, key=lambda one: (one.removed_ms, one.order))
        self.check_no_file_above(target)
        if target in self.entries:
            raise FileExists(target)
        top = self.place_in(latest, path)
        assert top is not None
        taken = [p for p in latest.entries if p == top or p.startswith(top + "/")]
        entries = {p[len(top) :]: latest.entries.pop(p) for p in taken}
        policies = {p[len(top) :]: latest.policies.pop(p) for p in taken if p in latest.policies}
        if not top:
            self.trash.remove(latest)
        for ancestor in self.ancestors(target):
            self.entries.setdefault(ancestor, None)
        self.put(target, entries, policies)

    @staticmethod
    def place_in(removed: Removed, path: str) -> str | None:
        """Where a path was in what was removed, if it can have been."""
        if path == removed.path or path.startswith(removed.path + "/"):
            return path[len(removed.path) :]
        return None

    def expire(self, until_ms: int) -> None:
        self.trash = [one for one in self.trash if one.until_ms > until_ms]

    def clone(self, source: str, target: str, *, replace: bool) -> None:
        self.check_no_file_above(source)
        if source not in self.entries:
            raise FileMissing(source)
        if source == "/":
            raise InvalidPath(source)
        if target == source or target.startswith(source + "/"):
            raise InvalidPath(target)
        self.check_clone_target(source_is_dir=self.is_dir(source), target=target, replace=replace)
        self.put(target, *self.copy_of(source))

    def check_clone_target(self, *, source_is_dir: bool, target: str, replace: bool) -> None:
        if target == "/":
            raise InvalidPath(target)
        self.check_no_file_above(target)
        if any(a not in self.entries for a in self.ancestors(target)):
            raise FileMissing(target)
        if target in self.entries:
            if source_is_dir:
                raise FileExists(target)
            if self.is_dir(target):
                raise IsDirectory(target)
            if not replace:
                raise FileExists(target)

    def copy_of(self, top: str) -> tuple[dict[str, object | None], dict[str, int]]:
        below = [top, *(self.below(top) if self.is_dir(top) else [])]
        policies = {p[len(top) :]: self.policies[p] for p in below if p in self.policies}
        return {p[len(top) :]: self.entries[p] for p in below}, policies

    def set_policy(self, path: str, retention_ms: int) -> None:
        self.check_no_file_above(path)
        if path not in self.entries:
            raise FileMissing(path)
        if self.is_file(path):
            raise NotDirectory(path)
        if retention_ms == -1:
            self.policies.pop(path, None)
        else:
            self.policies[path] = retention_ms

    def outcome(self, change: object) -> str | None:
        """Run a change; the wire code of its refusal, None if it was made."""
        assert callable(change)
        kept = dict(self.entries), dict(self.policies), list(self.trash), self.removed_count
        try:
            change()
        except MinigfsError as refusal:
            self.entries, self.policies, self.trash, self.removed_count = kept
            return refusal.code
        return None
