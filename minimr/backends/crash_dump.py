"""What faulthandler writes when the interpreter crashes, for people: the user's frames only."""

import re

from minimr.tasks.failures import is_framework

__all__ = ["crash_stack", "without_dumps"]

_DUMP = re.compile(
    r"^Fatal Python error: .*\n"
    r"(?:\n|(?:Current t|T)hread .*\n|Stack .*\n|  .*\n|Extension modules: .*(?:\n|\Z))*",
    re.MULTILINE,
)
_FRAME_FILE = re.compile(r'  File "([^"]*)", line ')


def crash_stack(log: str) -> str | None:
    """The last dump in a log; None if it has none."""
    dumps = _DUMP.findall(log)
    return "\n".join(filter(_is_told, dumps[-1].splitlines())) if dumps else None


def without_dumps(log: str) -> str:
    """The log without its dumps."""
    return _DUMP.sub("", log)


def _is_told(line: str) -> bool:
    frame = _FRAME_FILE.match(line)
    if frame is None:
        return bool(line) and not line.startswith("Extension modules: ")
    return not (is_framework(frame[1]) or frame[1].startswith("<frozen "))
