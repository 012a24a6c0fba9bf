"""``--set`` options of input and output formats, as fields of the format's description.

``--set input.header=true`` sets the field ``header`` of the input format, ``output.`` those of the
output format. All other names belong to the job, but for the few listed here.
"""

import dataclasses
from collections.abc import Mapping
from typing import TypeVar

from minimr.errors import JobUsageError

__all__ = ["is_format_setting", "shuffle_compression", "with_options"]

FormatT = TypeVar("FormatT")

_NAMES = frozenset(
    {"input_format", "output_format", "compression", "escape", "shuffle_compression"}
)
_PREFIXES = ("input.", "output.")


def is_format_setting(name: str) -> bool:
    """Whether ``--set name=`` is an option of a format; a job's factory gets all the others."""
    return name in _NAMES or name.startswith(_PREFIXES)


def shuffle_compression(settings: Mapping[str, str]) -> str:
    """How map outputs are packed on their way to reducers: ``--set shuffle_compression=lz4`` or
    ``zstd``; "" for not at all. It pays where the network is slower than the processors."""
    chosen = settings.get("shuffle_compression", "none")
    if chosen not in ("none", "lz4", "zstd"):
        raise JobUsageError(f"shuffle_compression={chosen!r} is none of lz4, zstd, none")
    return "" if chosen == "none" else chosen


def with_options(chosen: FormatT, prefix: str, settings: Mapping[str, str]) -> FormatT:
    """The same format with those of its fields changed that ``settings`` names.

    Raises `JobUsageError` for a field that it does not have, or a value of the wrong kind.
    """
    given = {
        name.removeprefix(prefix): text
        for name, text in settings.items()
        if name.startswith(prefix)
    }
    if not given:
        return chosen
    known = _fields(chosen)
    for name in given:
        if name not in known:
            has = ", ".join(f"{prefix}{each}" for each in known) or "none"
            raise JobUsageError(
                f"{type(chosen).__name__} has no option {prefix}{name}: it has {has}"
            )
    changes = {name: _parsed(prefix + name, known[name], text) for name, text in given.items()}
    return dataclasses.replace(chosen, **changes)  # type: ignore[type-var]


def _fields(chosen: object) -> dict[str, object]:
    if not dataclasses.is_dataclass(chosen):
        return {}
    return {each.name: getattr(chosen, each.name) for each in dataclasses.fields(chosen)}


def _parsed(name: str, now: object, text: str) -> object:
    """``text`` as a value of the kind that the field has now."""
    if isinstance(now, bool):
        if text not in ("true", "false"):
            raise JobUsageError(f"{name}={text!r}: must be true or false")
        return text == "true"
    if isinstance(now, int):
        if not (text.isascii() and text.isdigit()):
            raise JobUsageError(f"{name}={text!r}: must be a whole number")
        return int(text)
    if isinstance(now, tuple):
        return tuple(text.split(","))
    return {"\\t": "\t"}.get(text, text)
