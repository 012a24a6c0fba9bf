"""`minimr up`, `down`, `status` and `serve`: the processes of a cluster."""

import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from minigfs.cli.cluster import process_line, storage_shape
from minigfs.cli.serve import chunkserver, configure_logging, master_options, metrics_option
from minigfs.cli.trust import security_from, tls_options
from minigfs.cluster import ClusterLayout, ProcessEvent, announce_ready, default_home
from minigfs.errors import ClusterError, NoQuorum
from minigfs.terminal import (
    Terminal,
    bytes_option,
    echo_json,
    format_bytes,
    format_count,
    format_table,
    terminal_options,
)
from minimr.cli.home import home_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from minigfs.cluster.storage import StorageShape
    from minigfs.master.options import MasterOptions
    from minigfs.transport.security import TlsFiles
    from minimr.cluster.status import ClusterStatus
    from minimr.messages import JobStatus

__all__ = ["down", "serve", "status", "up"]

_SHOWN_JOB_COUNT = 10  # `jobs list` knows more; the servers should not scroll away


def _layout() -> ClusterLayout:
    return ClusterLayout(default_home().expanduser().absolute())


@click.command()
@home_option
@storage_shape
@click.option("--workers", type=int, help="Number of workers.  [default: one per CPU, at most 8]")
@bytes_option("--memory", "memory", help="Bound of one executor, whatever its job asks for.")
@click.option("--ray-address", metavar="HOST:PORT", help="Run the workers in this Ray, start none.")
@click.option("--insecure", is_flag=True, help="Also a Ray that asks nobody for a token.")
@click.option("--json", "as_json", is_flag=True, help="Print what runs as JSON.")
@terminal_options
@click.pass_obj
def up(
    terminal: Terminal,
    storage: "StorageShape",
    workers: int | None,
    memory: int | None,
    ray_address: str | None,
    insecure: bool,
    as_json: bool,
) -> None:
    """Start a cluster on this machine, or whatever of it is not running.

    The first start fixes chunk size, replication and ports; all data is found again by later ones.
    """
    from minimr.cluster import deploy

    began_ns = time.monotonic_ns()
    layout = _layout()
    try:
        state = deploy.up(
            layout,
            deploy.ClusterShape(
                storage=storage,
                workers=workers,
                memory_bytes=memory,
                ray_address=ray_address,
                insecure=insecure,
            ),
            progress=lambda event: terminal.say(process_line(event)),
            waiting=lambda: terminal.say(f"waiting for another start or stop in {layout.home}"),
        )
    except KeyboardInterrupt:
        terminal.say("interrupted; `minimr up` goes on, `minimr down` stops what has started")
        raise
    took_s = (time.monotonic_ns() - began_ns) / 1e9
    chunkserver_count = len(state.with_role("chunkserver"))
    terminal.say(
        f"ready in {took_s:.1f} s: {format_count(len(state.masters), 'master')}, "
        f"{format_count(chunkserver_count, 'chunkserver')}, "
        f"{format_count(deploy.worker_count(state), 'worker')}, in {layout.home}"
    )
    if as_json:
        echo_json({"home": str(layout.home), "cluster": state})


@click.command()
@home_option
@terminal_options
@click.pass_obj
def down(terminal: Terminal) -> None:
    """Stop the cluster's processes on this machine; `up` finds all data again."""
    from minimr.cluster import deploy

    layout = _layout()
    stopped: list[ProcessEvent] = []

    def show(event: ProcessEvent) -> None:
        stopped.append(event)
        terminal.say(process_line(event))

    ray_logs = deploy.down(
        layout,
        progress=show,
        waiting=lambda: terminal.say(f"waiting for another start or stop in {layout.home}"),
    )
    if not stopped:
        terminal.say(f"nothing was running in {layout.home}")
    if ray_logs is not None:
        terminal.say(f"Ray's logs are kept in {ray_logs}: the workers had not ended by themselves")


@click.command()
@home_option
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON.")
@terminal_options
def status(as_json: bool) -> None:
    """Show the health of the cluster, its servers, workers and jobs.

    While no master leads, this is what is known of the masters, and the exit code is 3.
    """
    from minimr.cluster import deploy

    try:
        _show_status(deploy.status(_layout()), as_json=as_json)
    except NoQuorum:
        with suppress(ClusterError):  # nobody is left who could tell
            _show_status(deploy.last_known_status(_layout()), as_json=as_json)
        raise


def _show_status(found: "ClusterStatus", *, as_json: bool) -> None:
    if as_json:
        echo_json(found)
    else:
        click.echo("\n".join(_status_lines(found)))


def _newest(jobs: "Sequence[JobStatus]") -> "list[JobStatus]":
    """Running jobs before ended ones, the newest first."""
    newest_first = jobs[::-1]
    return sorted(newest_first, key=lambda job: job.state.is_final)[:_SHOWN_JOB_COUNT]


def _status_lines(found: "ClusterStatus") -> list[str]:
    masters = [
        (m.role, str(m.term), m.address, str(m.pid), str(m.commit_index), m.dir)
        for m in found.masters
    ]
    servers = [
        (s.address, str(s.pid), s.host, f"{s.chunks:,}", format_bytes(s.bytes), s.dir)
        for s in found.chunkservers
    ]
    workers = [
        (w.id, str(w.pid), str(w.executor_pid), w.host, w.task or "idle", w.dir)
        for w in found.workers
    ]
    jobs = [
        (
            j.job_id,
            j.state.value,
            f"{j.maps_done}/{j.map_count}",
            f"{j.reduces_done}/{j.reduce_count}",
            j.output,
        )
        for j in _newest(found.jobs)
    ]
    told = (*found.health.reasons, *found.health.notes)
    lines = [f"health: {found.health.word}", *(f"  {reason}" for reason in told)]
    for heads, rows in (
        (("MASTER", "TERM", "ADDRESS", "PID", "COMMIT", "DIRECTORY"), masters),
        (("CHUNKSERVER", "PID", "HOST", "CHUNKS", "STORED", "DIRECTORY"), servers),
        (("WORKER", "PID", "EXECUTOR", "HOST", "TASK", "DIRECTORY"), workers),
        (("JOB", "STATE", "MAPS", "REDUCES", "OUTPUT"), jobs),
    ):
        if rows:
            lines += ["", *format_table(heads, rows)]
    return lines


@click.group()
def serve() -> None:
    """Run one server in the foreground, as `up` starts it or on another machine."""


serve.add_command(chunkserver)


@serve.command()
@master_options
@terminal_options
def master(options: "MasterOptions") -> None:
    """Run a master: the namespace, the chunks and the jobs."""
    from minigfs.transport.event_loop import run_event_loop
    from minimr.cluster.master import serve_cluster_master

    configure_logging()
    run_event_loop(serve_cluster_master(options, ready=announce_ready))


@serve.command()
@click.option("--dir", "directory", required=True, help="Holds a directory for each worker.")
@click.option("--listen", default="127.0.0.1:0", show_default=True, help="For map output.")
@click.option("--advertise", default="", help="HOST:PORT others reach it by [default: --listen].")
@click.option("--cluster-id", required=True, help="Name of the cluster they belong to.")
@click.option("--token-file", required=True, help="File with the cluster's token.")
@tls_options
@click.option("--join", "masters", multiple=True, required=True, help="HOST:PORT of a master.")
@click.option("--workers", "count", type=click.IntRange(1, 256), default=1, show_default=True)
@click.option(
    "--host-label", "labels", multiple=True,
    help="Host they count as; several are given in turn.  [default: this machine's name]",
)  # fmt: skip
@click.option("--rack", "racks", multiple=True, help="Rack of each --host-label, in their order.")
@bytes_option("--memory", "memory", help="Bound of one executor, whatever its job asks for.")
@click.option("--ray-address", default="", metavar="HOST:PORT", help="Use this Ray, start none.")
@click.option(
    "--insecure", is_flag=True,
    help="Listen beyond this machine without TLS; use a Ray that asks nobody for a token.",
)  # fmt: skip
@metrics_option
@terminal_options
def workers(
    directory: str,
    listen: str,
    advertise: str,
    cluster_id: str,
    token_file: str,
    tls: "TlsFiles | None",
    masters: tuple[str, ...],
    count: int,
    labels: tuple[str, ...],
    racks: tuple[str, ...],
    memory: int | None,
    ray_address: str,
    insecure: bool,
    metrics: str,
) -> None:
    """Run workers on this machine, in a Ray of their own.

    The ports of --listen and --advertise are the first worker's; the next ones have those that
    follow, or any (port 0, which --advertise takes over from --listen). Each worker serves
    --metrics too, likewise: the address is in metrics.address of the worker's directory.
    """
    from minigfs.transport.address import parse_address
    from minimr.cluster.workers import WorkersOptions, check_foreign_ray, serve_workers

    configure_logging()
    security_from(
        listen=listen, cluster_id=cluster_id, token_file=token_file, tls=tls, insecure=insecure
    )
    check_foreign_ray(ray_address, insecure=insecure)
    if advertise:
        parse_address(advertise)
    hosts = labels or (socket.gethostname(),)
    if racks and len(racks) not in (1, len(hosts)):
        raise click.BadParameter(f"give one, or one for each of {len(hosts)} hosts",
                                 param_hint="--rack")  # fmt: skip
    options = WorkersOptions(
        directory=Path(directory),
        listen=listen,
        masters=masters,
        token_file=Path(token_file),
        cluster_id=cluster_id,
        worker_count=count,
        hosts=hosts,
        racks=racks,
        memory_bytes=memory or 0,
        ray_address=ray_address,
        tls=tls,
        advertise=advertise,
        metrics=metrics,
    )
    serve_workers(options, ready=announce_ready)
