"""``minimr data``: seeded input data of any size, written to any URL."""

import click

from minigfs.terminal import bytes_option, format_bytes
from minimr.cli.home import home_option

__all__ = ["data"]

DEFAULT_SIZE_BYTES = 100_000_000


@click.group()
def data() -> None:
    """Generate input data."""


@data.command("access-log")
@bytes_option("--size", "size", help="Bytes to write.  [default: 100MB]")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--output", "-o", required=True, metavar="URL", help="A file; minigfs:/// or local.")
@home_option
def access_log(size: int | None, seed: int, output: str) -> None:
    """Write a web server's access log: the same seed and size give the same bytes everywhere."""
    from minimr.datasets import access_log as generator

    written = generator.write(
        output, size_bytes=DEFAULT_SIZE_BYTES if size is None else size, seed=seed
    )
    click.echo(output)
    click.echo(f"{format_bytes(written)} written, seed {seed}", err=True)
