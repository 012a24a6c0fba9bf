"""What one sequential copy would answer: the specifications histories are checked against.

========= ===================================================================================
register  ``read K``, ``write K V``, ``cas K OLD NEW`` (answers whether it took place)
kv        ``get K`` (None or the tuple of what was put and appended), ``put K V``, ``append K V``
          (answers the new length, or None if the service does not tell), ``delete K``
counter   ``add K N`` and ``get K`` (both answer the sum): a command executed twice shows
namespace a small tree of directories and files, see ``NamespaceModel``
========= ===================================================================================

Every call of the first three names its key first, so that a state is that of one key.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, TypeAlias

from tests.linearizability.checker import Model
from tests.linearizability.history import Call, Operation, Value

__all__ = [
    "MODELS",
    "CounterModel",
    "KeyValueModel",
    "NamespaceModel",
    "RegisterModel",
    "UnknownCall",
]


class UnknownCall(ValueError):
    """The model has no such call; the history belongs to another model."""


class _KeyedModel:
    """One key a call, answers compared as they are."""

    name: ClassVar[str]
    reads: ClassVar[frozenset[str]]

    def initial(self) -> Value:
        return None

    def keys(self, call: Call) -> tuple[Value, ...]:
        return (call[1],)

    def changes_nothing(self, call: Call, seen: Value) -> bool:
        return call[0] in self.reads

    def accepts(self, call: Call, expected: Value, seen: Value) -> bool:
        return expected == seen

    def informed(self, operations: Sequence[Operation]) -> Self:
        return self


class RegisterModel(_KeyedModel):
    name = "register"
    reads = frozenset({"read"})

    def changes_nothing(self, call: Call, seen: Value) -> bool:
        return call[0] == "read" or (call[0] == "cas" and seen is False)

    def apply(self, state: Value, call: Call) -> tuple[Value, Value]:
        match call:
            case ("read", _):
                return state, state
            case ("write", _, value):
                return value, None
            case ("cas", _, old, new):
                return (new, True) if state == old else (state, False)
        raise UnknownCall(f"register has no call {call!r}")


_CONTRADICTED = "nothing here: a list that was read has it elsewhere"


class KeyValueModel(_KeyedModel):
    """Values that are put and appended once each make a list tell its own history: what stands
    before an element when it is read stood there when it was appended.

    Parameters
    ----------
    lists
        By its last element, the list that an append must make, because it was read.
    longest
        What every list must begin with, as far as it goes, because nothing ever shortens one.
    unseen
        Calls whose outcome nobody knows and whose effect nobody saw.
    """

    name = "kv"
    reads = frozenset({"get"})

    def __init__(
        self,
        lists: Mapping[Value, tuple[Value, ...]] | None = None,
        longest: tuple[Value, ...] = (),
        unseen: frozenset[Call] = frozenset(),
    ) -> None:
        self._lists = lists or {}
        self._longest = longest
        self._unseen = unseen

    def apply(self, state: Value, call: Call) -> tuple[Value, Value]:
        match call:
            case ("get", _):
                return state, state
            case ("put", _, value):
                return (value,), None
            case ("append", _, value):
                grown = (*state, value) if isinstance(state, tuple) else (value,)
                if call in self._unseen or self._contradicted(grown):
                    return state, _CONTRADICTED
                return grown, len(grown)
            case ("delete", _):
                return None, None
        raise UnknownCall(f"kv has no call {call!r}")

    def _contradicted(self, grown: tuple[Value, ...]) -> bool:
        place = len(grown) - 1
        if place < len(self._longest) and grown[place] != self._longest[place]:
            return True
        return self._lists.get(grown[place], grown) != grown

    def accepts(self, call: Call, expected: Value, seen: Value) -> bool:
        if expected == _CONTRADICTED:
            return False
        return expected == seen or (seen is None and call[0] not in self.reads)

    def informed(self, operations: Sequence[Operation]) -> "KeyValueModel":
        read = [op.result for op in operations if op.call[0] == "get"]
        seen = [result for result in read if isinstance(result, tuple)]
        appends = [op for op in operations if op.call[0] == "append"]
        only_grows = len(appends) + len(read) == len(operations)
        longest = max(seen, key=len, default=()) if only_grows else ()
        written = [op.call[2] for op in operations if op.call[0] in ("put", "append")]
        if len(set(written)) < len(written):
            return KeyValueModel(longest=longest)
        lists: dict[Value, tuple[Value, ...]] = {}
        for result in seen:
            for end, value in enumerate(result, start=1):
                lists.setdefault(value, result[:end])
        unseen: frozenset[Call] = frozenset()
        if all(op.result is None for op in appends):  # else a length may have counted it
            unseen = frozenset(op.call for op in appends if op.unknown and op.call[2] not in lists)
        return KeyValueModel(lists, longest, unseen)


class CounterModel(_KeyedModel):
    name = "counter"
    reads = frozenset({"get"})

    def initial(self) -> Value:
        return 0

    def apply(self, state: Value, call: Call) -> tuple[Value, Value]:
        assert isinstance(state, int)
        match call:
            case ("get", _):
                return state, state
            case ("add", _, int(amount)):
                return state + amount, state + amount
        raise UnknownCall(f"counter has no call {call!r}")


Tree: TypeAlias = frozenset[tuple[str, int | None]]
"""Every path that exists but the root, with what tells its file from others; None: a directory."""

_REFUSED = "refused"
_READS = frozenset({"stat", "list"})


class _Refusal(Exception):
    """The tree says no."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class NamespaceModel:
    """The tree of the file system, small enough to be a value.

    ====================================== ====================================================
    call                                   answer
    ====================================== ====================================================
    ``create PATH CONTENT EXCLUSIVE``      None. The file appears with its parents, in place of
                                           a file unless EXCLUSIVE. CONTENT (an integer, its
                                           size for example) says which file it is
    ``mkdir PATH``                         None; the directory must be new
    ``rename SOURCE TARGET REPLACE``       None; REPLACE lets a file take a file's place
    ``remove PATH RECURSIVE``              (files, directories) that are gone
    ``clone SOURCE TARGET CONTENT REPLACE``
                                           None; the copy's files are CONTENT from then on, or if
                                           that is negative what they were
    ``both CALL CALL``                     None; the two changes, of those above, or neither
    ``stat PATH``                          CONTENT, or ``"directory"``
    ``list PATH``                          the sorted (name, answer of stat) pairs below it
    ====================================== ====================================================

    Any of them may answer ``("refused", CODE)`` with the code of ``minigfs.errors``; then nothing
    changed. A rename or listing of the root would tie all trees together and has no place here:
    calls stay below top-level directories, and top-level directories that no rename connects are
    checked apart.
    """

    name = "namespace"

    def initial(self) -> Tree:
        return frozenset()

    def keys(self, call: Call) -> tuple[Value, ...]:
        if call[0] == "both":
            return tuple(key for part in call[1:] for key in self.keys(part))
        paths = call[1:3] if call[0] in ("rename", "clone") else call[1:2]
        return tuple(_parts(path)[0] for path in paths)

    def changes_nothing(self, call: Call, seen: Value) -> bool:
        return call[0] in _READS or (isinstance(seen, tuple) and seen[:1] == (_REFUSED,))

    def accepts(self, call: Call, expected: Value, seen: Value) -> bool:
        return expected == seen

    def informed(self, operations: Sequence[Operation]) -> Self:
        return self

    def apply(self, state: Tree, call: Call) -> tuple[Tree, Value]:
        tree = dict(state)
        try:
            answer = _answer(tree, call)
        except _Refusal as refusal:
            return state, (_REFUSED, refusal.code)
        return (state if call[0] in _READS else frozenset(tree.items())), answer


def _answer(tree: dict[str, int | None], call: Call) -> Value:
    match call:
        case ("stat", str(path)):
            return _kind(_entry(tree, path))
        case ("list", str(path)):
            return _listing(tree, path)
        case ("mkdir", str(path)):
            _make_directory(tree, path)
        case ("create", str(path), int(content), bool(exclusive)):
            _create(tree, path, content, exclusive=exclusive)
        case ("rename", str(source), str(target), bool(replace)):
            _rename(tree, source, target, replace=replace)
        case ("remove", str(path), bool(recursive)):
            return _remove(tree, path, recursive=recursive)
        case ("clone", str(source), str(target), int(content), bool(replace)):
            _clone(tree, source, target, content, replace=replace)
        case ("both", tuple(one), tuple(other)):
            _answer(tree, one)
            _answer(tree, other)
        case _:
            raise UnknownCall(f"namespace has no call {call!r}")
    return None


def _parts(path: Value) -> list[str]:
    if not isinstance(path, str) or not path.startswith("/") or path == "/":
        raise UnknownCall(f"{path!r} is no path below the root")
    return path[1:].split("/")


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _kind(content: int | None) -> Value:
    return "directory" if content is None else content


def _below(tree: Mapping[str, int | None], path: str) -> list[str]:
    return [other for other in tree if other.startswith(path + "/")]


def _exists(tree: Mapping[str, int | None], path: str) -> bool:
    """Whether something stands there; a file on the way is an error."""
    ancestor = _parent(path)
    while ancestor:
        if tree.get(ancestor) is not None:
            raise _Refusal("not-directory")
        ancestor = _parent(ancestor)
    return path in tree


def _entry(tree: Mapping[str, int | None], path: str) -> int | None:
    if not _exists(tree, path):
        raise _Refusal("file-missing")
    return tree[path]


def _check_parent(tree: Mapping[str, int | None], path: str) -> None:
    parent = _parent(path)
    if parent and _entry(tree, parent) is not None:
        raise _Refusal("not-directory")


def _listing(tree: Mapping[str, int | None], path: str) -> Value:
    content = _entry(tree, path)
    if content is not None:
        return ((path.rpartition("/")[2], content),)
    children = sorted(other for other in tree if _parent(other) == path)
    return tuple((child.rpartition("/")[2], _kind(tree[child])) for child in children)


def _make_directory(tree: dict[str, int | None], path: str) -> None:
    if _exists(tree, path):
        raise _Refusal("file-exists")
    _check_parent(tree, path)
    tree[path] = None


def _create(tree: dict[str, int | None], path: str, content: int, *, exclusive: bool) -> None:
    if _exists(tree, path):
        if tree[path] is None:
            raise _Refusal("is-directory")
        if exclusive:
            raise _Refusal("file-exists")
    ancestor = _parent(path)
    while ancestor:
        tree[ancestor] = None
        ancestor = _parent(ancestor)
    tree[path] = content


def _rename(tree: dict[str, int | None], source: str, target: str, *, replace: bool) -> None:
    content = _entry(tree, source)
    if source == target:
        return
    if content is None and target.startswith(source + "/"):
        raise _Refusal("invalid-path")
    _check_parent(tree, target)
    if target in tree:
        if content is None:
            raise _Refusal("file-exists")
        if tree[target] is None:
            raise _Refusal("is-directory")
        if not replace:
            raise _Refusal("file-exists")
    for path in [source, *_below(tree, source)]:
        tree[target + path[len(source) :]] = tree.pop(path)


def _clone(
    tree: dict[str, int | None], source: str, target: str, content: int, *, replace: bool
) -> None:
    kind = _entry(tree, source)
    if target == source or target.startswith(source + "/"):
        raise _Refusal("invalid-path")
    _check_parent(tree, target)
    if target in tree:
        if kind is None:
            raise _Refusal("file-exists")
        if tree[target] is None:
            raise _Refusal("is-directory")
        if not replace:
            raise _Refusal("file-exists")
    for path in [source, *_below(tree, source)]:
        known = tree[path]
        tree[target + path[len(source) :]] = known if known is None or content < 0 else content


def _remove(tree: dict[str, int | None], path: str, *, recursive: bool) -> Value:
    content = _entry(tree, path)
    below = _below(tree, path)
    if below and not recursive:
        raise _Refusal("directory-not-empty")
    gone = [tree.pop(each) for each in [path, *below]]
    directories = sum(each is None for each in gone)
    assert content is None or not below
    return len(gone) - directories, directories


MODELS: Mapping[str, Model[Any]] = {
    model.name: model
    for model in (RegisterModel(), KeyValueModel(), CounterModel(), NamespaceModel())
}
"""By the name the command line takes."""
