"""The verbs on files, for `minigfs` and `minimr fs` alike.

Paths of the cluster are absolute (``/logs``) or URLs (``minigfs:///logs``) and may hold the
patterns ``* ? [..]`` and ``**``; quote them, so that the shell leaves them alone. The verbs stand
in modules by what they do: `listing`, `content`, `append`, `changes`, `fsck`.
"""

import click

from minigfs.cli.append import append
from minigfs.cli.changes import clone, cp, mkdir, mv, policy, rm, setrep, undelete
from minigfs.cli.content import cat, get, head, put, tail
from minigfs.cli.fsck import checksum, fsck, locations, scrub
from minigfs.cli.listing import du, find, ls, stat, tree

__all__ = ["fs_commands"]

fs_commands: list[click.Command] = [
    *(ls, tree, find, du, stat),
    *(cat, head, tail, put, get, append),
    *(rm, undelete, mv, cp, clone, mkdir, setrep, policy),
    *(checksum, fsck, locations, scrub),
]
