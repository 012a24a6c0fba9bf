"""`serve`: one server process in the foreground, as `up` starts it or on another machine."""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minigfs.cli.background import (
    SCRUB_DAYS,
    SCRUB_DAYS_HELP,
    repair_rate_option,
    scrub_rate_option,
)
from minigfs.cli.trust import security_from, tls_options
from minigfs.cluster import announce_ready
from minigfs.config import DEFAULT_CHUNK_BYTES, DEFAULT_REPLICATION, FileSystemConfig
from minigfs.terminal import bytes_option, terminal_options

if TYPE_CHECKING:
    from minigfs.master.options import MasterOptions

__all__ = ["configure_logging", "master_options", "metrics_option", "serve", "server_options"]


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options every server process takes; the last ones are for `security_from`."""
    for option in reversed(
        (
            click.option("--dir", "directory", required=True, help="The server's own directory."),
            click.option("--listen", required=True, help="HOST:PORT to listen on; port 0: any."),
            click.option("--advertise", help="HOST:PORT others reach it by [default: --listen]."),
            click.option("--cluster-id", required=True, help="Name of the cluster it belongs to."),
            click.option("--token-file", required=True, help="File with the cluster's token."),
            tls_options,
            click.option(
                "--insecure",
                is_flag=True,
                help="Listen beyond this machine without TLS: anybody on the way reads along.",
            ),
        )
    ):
        command = option(command)
    return command


metrics_option = click.option(
    "--metrics",
    default="",
    envvar="MINIGFS_METRICS",
    help="HOST:PORT to serve /metrics for Prometheus on (port 0: any; the address is then in "
    "metrics.address of --dir). Asks for the cluster's token as a bearer token.  "
    "[default: $MINIGFS_METRICS, else nowhere]",
)


def configure_logging() -> None:
    """Log to stderr, which `up` sends to the process's log file."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )


@click.group()
def serve() -> None:
    """Run one server in the foreground."""


def master_options(command: Callable[["MasterOptions"], None]) -> Callable[..., None]:
    """The options of a master process; the command gets them as one `MasterOptions`."""

    @server_options
    @metrics_option
    @repair_rate_option
    @bytes_option("--chunk-size", "chunk_bytes", help="Size of a chunk.  [default: 64MiB]")
    @click.option(
        "--replication", type=click.IntRange(min=1), default=DEFAULT_REPLICATION, show_default=True
    )
    @click.option(
        "--join",
        "masters",
        multiple=True,
        help="HOST:PORT of a master whose group to join; repeatable.  [default: found a new group]",
    )
    @click.option(
        "--founded",
        is_flag=True,
        help="Refuse an empty directory: it held a master, and what that promised is lost.",
    )
    @functools.wraps(command)
    def with_options(
        directory: str,
        listen: str,
        advertise: str | None,
        cluster_id: str,
        chunk_bytes: int | None,
        replication: int,
        masters: tuple[str, ...],
        founded: bool,
        metrics: str,
        repair_rate: int | None,
        **trust: Any,
    ) -> None:
        from minigfs.master.copy_book import RepairLimits
        from minigfs.master.options import MasterOptions

        config = FileSystemConfig(
            cluster_id=cluster_id,
            chunk_bytes=chunk_bytes or DEFAULT_CHUNK_BYTES,
            replication=replication,
        )
        options = MasterOptions(
            directory=Path(directory),
            listen=listen,
            advertise=advertise,
            security=security_from(listen=listen, cluster_id=cluster_id, **trust),
            config=config,
            join=masters,
            founded=founded,
            metrics=metrics,
            repair=RepairLimits.at_rate(repair_rate) if repair_rate else RepairLimits(),
            insecure=bool(trust["insecure"]),
        )
        command(options)

    return with_options


@serve.command()
@master_options
@terminal_options
def master(options: "MasterOptions") -> None:
    """Run a master: the namespace, and which chunkserver holds what."""
    from minigfs.master.process import FileSystemService, serve_master
    from minigfs.ports import SystemClock, SystemRng
    from minigfs.transport.event_loop import run_event_loop

    configure_logging()
    service = FileSystemService(options.config, options, SystemClock(), SystemRng())
    run_event_loop(serve_master(options, [service], ready=announce_ready))


@serve.command()
@server_options
@metrics_option
@scrub_rate_option
@click.option(
    "--scrub-days",
    type=click.FloatRange(min=0, min_open=True),
    default=SCRUB_DAYS,
    show_default=True,
    help=SCRUB_DAYS_HELP,
)
@click.option(
    "--join", "masters", multiple=True, required=True, help="HOST:PORT of a master; repeatable."
)
@click.option("--host-label", default="", help="Host it counts as [default: this machine's name].")
@click.option("--rack", default="", help="Rack it counts as when replicas are spread.")
@terminal_options
def chunkserver(
    directory: str,
    listen: str,
    advertise: str | None,
    cluster_id: str,
    masters: tuple[str, ...],
    host_label: str,
    rack: str,
    metrics: str,
    scrub_rate: int | None,
    scrub_days: float,
    **trust: Any,
) -> None:
    """Run a chunkserver: chunks as files in its directory."""
    from minigfs.chunkserver.process import ChunkserverOptions, serve_chunkserver
    from minigfs.chunkserver.scrub_schedule import RATE_MIN

    configure_logging()
    options = ChunkserverOptions(
        directory=Path(directory),
        listen=listen,
        advertise=advertise or "",
        masters=masters,
        security=security_from(listen=listen, cluster_id=cluster_id, **trust),
        host=host_label,
        rack=rack,
        metrics=metrics,
        scrub_bound_ms=int(scrub_days * 24 * 3_600_000),
        scrub_bytes_per_second=scrub_rate or RATE_MIN,
        insecure=bool(trust["insecure"]),
    )
    serve_chunkserver(options, ready=announce_ready)
