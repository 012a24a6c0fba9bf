"""The `minigfs` command: a cluster (`up`, `down`, `status`, `serve`) and its files.

The verbs on files are `minigfs.cli.files.fs_commands`, which `minimr fs` mounts as they are. What
happens at the terminal (errors as one line, exit codes) is `minigfs.terminal`.
"""

import click

from minigfs import __version__
from minigfs.cli.admin import admin_group
from minigfs.cli.cluster import down, status, up
from minigfs.cli.files import fs_commands
from minigfs.cli.offline import dump, rescue
from minigfs.cli.serve import serve
from minigfs.cluster.storage import STORAGE_KINDS
from minigfs.terminal import leave, run_cli, terminal_options

__all__ = ["fs_commands", "main", "minigfs"]


@click.group()
@click.version_option(__version__, prog_name="minigfs")
@terminal_options
def minigfs() -> None:
    """A mini Google File System: replicated, checksummed storage on one machine or many."""


for _command in (
    up,
    down,
    status,
    serve,
    admin_group(lambda: STORAGE_KINDS),
    *fs_commands,
    rescue,
    dump,
):
    minigfs.add_command(_command)


def main() -> None:
    """The console script."""
    leave(run_cli(minigfs, program="minigfs"))
