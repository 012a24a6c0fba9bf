"""``minimr verify``: an output against its manifest."""

import sys

import click

from minigfs.terminal import (
    EXIT_DAMAGE,
    Terminal,
    echo_json,
    format_bytes,
    format_count,
    terminal_options,
)
from minimr.cli.home import home_option

__all__ = ["verify"]


@click.command()
@click.argument("output")
@home_option
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@terminal_options
@click.pass_obj
def verify(terminal: Terminal, output: str, as_json: bool) -> None:
    """Check that OUTPUT is what its job published: all files, sizes, sums and records.

    Exit code 4 if anything is not.
    """
    from minimr.verify import verify_output

    report = verify_output(output)
    if as_json:
        echo_json({"is_whole": report.is_whole, **_fields(report)})
    elif report.is_whole:
        size_bytes = sum(file.size_bytes for file in report.files)
        count = format_count(len(report.files), "file")
        terminal.say(f"{report.output}: {count}, {format_bytes(size_bytes)}, ok")
    else:
        for problem in report.problems:
            click.echo(problem)
    if not report.is_whole:
        sys.exit(EXIT_DAMAGE)


def _fields(report: object) -> dict[str, object]:
    import msgspec

    fields: dict[str, object] = msgspec.to_builtins(report)
    return fields
