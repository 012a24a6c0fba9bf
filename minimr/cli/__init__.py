"""The ``minimr`` command: thin shells that parse, call one function and print its answer.

Subcommands are imported when they are named, so that ``minimr run`` on local files never pays for
the cluster's libraries.
"""

import importlib

import click

from minigfs.terminal import leave, run_cli, terminal_options
from minimr import __version__

__all__ = ["cli", "main"]

_COMMANDS = {
    "up": "minimr.cli.cluster:up",
    "down": "minimr.cli.cluster:down",
    "status": "minimr.cli.cluster:status",
    "serve": "minimr.cli.cluster:serve",
    "run": "minimr.cli.run:run",
    "jobs": "minimr.cli.jobs:jobs",
    "verify": "minimr.cli.verify:verify",
    "fs": "minimr.cli.fs:fs",
    "admin": "minimr.cli.admin:admin",
    "data": "minimr.cli.data:data",
    "bench": "minimr.cli.bench:bench",
}


class _LazyGroup(click.Group):
    """A group that knows its commands by name and imports one only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="minimr")
@terminal_options
def cli() -> None:
    """MapReduce on files and on minigfs, on this machine or a cluster.

    \b
    minimr run url-count --input access.log --output counts      no cluster needed
    minimr up                                                    a cluster on this machine
    minimr fs put access.log /logs/
    minimr run url-count --input minigfs:///logs/ --output minigfs:///counts
    minimr fs cat '/counts/part-*'

    Exit codes: 0 done, 1 the job or check failed, 2 wrong usage, 3 cluster unreachable,
    4 damage found, 130 interrupted.
    """


def main() -> None:
    """Entry point of the console script and of ``python -m minimr``."""
    leave(run_cli(cli, program="minimr"))
