"""``minimr fs``: the file verbs of ``minigfs``, mounted."""

import click

from minigfs.cli import fs_commands

__all__ = ["fs"]


@click.group()
def fs() -> None:
    """Files on minigfs: ls, cat, put, get, ..."""


for _command in fs_commands:
    fs.add_command(_command)
