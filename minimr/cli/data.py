"""``minimr data``: seeded input data of any size, written to any URL; a check of sorted data."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from minigfs.terminal import bytes_option, echo_json, format_bytes
from minimr.cli.home import home_option

if TYPE_CHECKING:
    from minimr.datasets.gensort import Format

__all__ = ["data"]

DEFAULT_SIZE_BYTES = 100_000_000


@click.group()
def data() -> None:
    """Generate input data; check sorted data."""


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


@data.command()
@click.option("--records", type=click.IntRange(0), required=True, help="How many.")
@click.option("--first", type=click.IntRange(0, 2**63), default=0, show_default=True,
              help="The number of the first record.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["binary", "ascii", "v1.1"]),
              default="binary", show_default=True, help="v1.1: as Hadoop's TeraGen.")  # fmt: skip
@click.option("--skew", is_flag=True, help="Keys with common beginnings, as gensort -s makes them.")
@click.option("--output", "-o", required=True, metavar="URL", help="A file; minigfs:/// or local.")
@home_option
def gensort(records: int, first: int, form: "Format", skew: bool, output: str) -> None:
    """Write records of the sort benchmark: 100 bytes each, the first 10 are the key.

    They are byte for byte those of gensort 1.5 (-a: --format ascii, -s: --skew, -b: --first).
    """
    from minimr.datasets import gensort as generator

    written = generator.write(output, records=records, first=first, form=form, skew=skew)
    click.echo(output)
    click.echo(f"{records:,} records, {format_bytes(written)} written", err=True)


@data.command()
@click.argument("url", metavar="URL")
@click.option("--summary", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
              help="Write the 280 bytes of valsort -o there.")  # fmt: skip
@click.option("--summaries", "is_summaries", is_flag=True,
              help="URL is a local file of such summaries, in order of the parts.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@home_option
def valsort(url: str, summary: Path | None, is_summaries: bool, as_json: bool) -> None:
    """Check that the records of a file, or of a job's output, are in order of their keys.

    Prints their number, checksum and duplicate keys, as valsort 1.5 does; exit code 1 if a record
    is out of order. Equal checksums of input and output say that the records are the same.
    """
    from minimr.datasets import valsort as validator

    if is_summaries:
        found = validator.read_summaries(Path(url).read_bytes())
    else:
        found = validator.validate(url)
    if summary is not None:
        summary.write_bytes(found.to_bytes())
    if as_json:
        echo_json(
            {
                "records": found.record_count,
                "checksum": f"{found.checksum:x}",
                "duplicate_keys": found.duplicate_count,
                "unordered_records": found.unordered_count,
                "first_unordered": found.first_unordered or None,
                "in_order": not found.unordered_count,
            }
        )
    else:
        click.echo("\n".join(validator.report(found)))
    if found.unordered_count:
        raise click.exceptions.Exit(1)
