"""What the commands on files take alike: paths, --json, times of keeping."""

import re

import click

__all__ = [
    "INHERIT",
    "Duration",
    "format_kept",
    "json_option",
    "paths_argument",
    "replication_option",
    "retention_option",
]

INHERIT = -1  # as the directories above say

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(\d+)\s*(ms|s|m|h|d)")

json_option = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
paths_argument = click.argument("paths", nargs=-1, required=True)


class Duration(click.ParamType[int]):
    """``3d``, ``12h``, ``90s``, 0 for not at all, ``inherit``; in milliseconds."""

    name = "TIME"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        text = str(value).strip().lower()
        if text == "inherit":
            return INHERIT
        if text == "0":
            return 0
        match = _DURATION.fullmatch(text)
        if match is None:
            self.fail(f"{value!r} is no time: write it like 3d, 12h, 90s or 0", param, ctx)
        return int(match[1]) * _UNITS_MS[match[2]]


def format_kept(retention_ms: int) -> str:
    """As a user would give it: ``3d``, ``90s``."""
    unit = next(
        (one for one in reversed(_UNITS_MS) if retention_ms and retention_ms % _UNITS_MS[one] == 0),
        "",
    )
    return f"{retention_ms // _UNITS_MS[unit]}{unit}" if unit else "0"


class _Goal(click.ParamType[int]):
    """A number of replicas, or ``inherit``."""

    name = "N"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        text = str(value).strip().lower()
        if text == "inherit":
            return INHERIT
        if not text.isdecimal():
            self.fail(f"{value!r} is no number of replicas", param, ctx)
        return int(text)


replication_option = click.option(
    "--replication", type=_Goal(), help="Replicas of what is written below; or inherit."
)
retention_option = click.option(
    "--retention",
    type=Duration(),
    help="How long what is removed below is kept: 3d, 12h, 0; or inherit.",
)
