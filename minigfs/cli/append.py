"""Records from stdin, added at the end of a file."""

import sys
from collections.abc import Iterator

import click

from minigfs.cli.connect import ClusterChoice, cluster_options
from minigfs.cli.paths import parse_path
from minigfs.errors import MinigfsError, UsageError
from minigfs.terminal import echo_json, format_count, terminal_options

__all__ = ["append"]


@click.command()
@click.argument("path")
@click.option("--lines", is_flag=True, help="One record a line, with its line feed.")
@click.option("--json", "as_json", is_flag=True, help="Print what was appended where as JSON.")
@cluster_options
@terminal_options
def append(cluster: ClusterChoice, path: str, lines: bool, as_json: bool) -> None:
    """Append stdin to a file, as one record; it is made if it is not there.

    A record is added exactly once, durably, and never torn or mixed with another, however many
    others append to the file. It has at most a quarter of a chunk.
    """
    target = parse_path(path)
    offsets: list[int] = []
    size_bytes = 0
    with cluster.connect().open_appender(target) as appender:
        for record in _records(lines, appender.record_bytes_max):
            try:
                offsets.append(appender.append(record))
            except MinigfsError as error:
                if offsets:  # whoever begins again with all of stdin has them twice
                    before = format_count(len(offsets), "record")
                    error.message += f"; {before} before it went into the file"
                raise
            size_bytes += len(record)
    if as_json:
        answer = {"path": target, "records": len(offsets), "bytes": size_bytes, "offsets": offsets}
        echo_json(answer)


def _records(lines: bool, bytes_max: int) -> Iterator[bytes]:
    source = sys.stdin.buffer
    if lines:
        while line := source.readline(bytes_max + 1):
            yield line
        return
    record = source.read(bytes_max + 1)
    if len(record) > bytes_max:
        raise UsageError(
            f"stdin has more than {bytes_max} bytes, a quarter of a chunk: too much for a record; "
            "give --lines, or `put` a file"
        )
    if record:
        yield record
