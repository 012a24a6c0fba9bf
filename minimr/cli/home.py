"""``--dir``: which cluster a command means; the same as setting ``$MINIMR_HOME``."""

import os
from pathlib import Path

import click

__all__ = ["home_option"]


def _remember(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    # The environment is where every reader of a minigfs URL looks, fsspec's included.
    if value is not None:
        os.environ["MINIMR_HOME"] = str(Path(value).absolute())


home_option = click.option(
    "--dir",
    metavar="DIR",
    expose_value=False,
    callback=_remember,
    help="Home of the cluster.  [default: $MINIMR_HOME, else ~/.minimr]",
)
