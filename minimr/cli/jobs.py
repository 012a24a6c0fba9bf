"""``minimr jobs``: what ran, what runs, and why it failed."""

import time

import click

from minigfs.terminal import (
    Terminal,
    echo_json,
    format_bytes,
    format_duration_ms,
    terminal_options,
)
from minimr.cli.home import home_option
from minimr.ids import JobId
from minimr.messages import JobStatus, Skew

__all__ = ["jobs"]

_HOT_SHARE = 0.01  # of all pairs; a key with fewer is not why a reduce takes long


@click.group()
def jobs() -> None:
    """List, show and cancel the jobs of a cluster, and what their tasks printed."""


_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@jobs.command("list")
@home_option
@_json
@terminal_options
def list_jobs(as_json: bool) -> None:
    """List running jobs and the last finished ones, newest first."""
    from minimr.backends.cluster_client import ClusterClient

    found = ClusterClient.discover().list_jobs()
    if as_json:
        echo_json([_as_dict(status) for status in found])
        return
    for status in found:
        click.echo(
            f"{status.job_id:<32} {status.state.value:<10} maps {status.maps_done}/"
            f"{status.map_count}  reduces {status.reduces_done}/{status.reduce_count}  "
            f"{format_duration_ms(_elapsed_ms(status)):>8}  {status.output}"
        )


@jobs.command("show")
@click.argument("job_id")
@home_option
@_json
@terminal_options
def show_job(job_id: str, as_json: bool) -> None:
    """Show one job: state, counters, phases, failure."""
    from minimr.backends.cluster_client import ClusterClient

    status = ClusterClient.discover().get_job(JobId(job_id))
    if as_json:
        echo_json(_as_dict(status))
        return
    click.echo(_describe(status))


@jobs.command("cancel")
@click.argument("job_id")
@home_option
@_json
@terminal_options
def cancel_job(job_id: str, as_json: bool) -> None:
    """Cancel a running job; nothing of it appears at its output."""
    from minimr.backends.cluster_client import ClusterClient

    status = ClusterClient.discover().cancel(JobId(job_id))
    if as_json:
        echo_json(_as_dict(status))
    else:
        is_ended = status.state.is_final
        state = status.state.value if is_ended else "is being cancelled: its tasks are told to stop"
        click.echo(f"{status.job_id} {state}")


@jobs.command("logs")
@click.argument("job_id")
@click.argument("task", default="")
@home_option
@_json
@terminal_options
@click.pass_obj
def show_logs(terminal: Terminal, job_id: str, task: str, as_json: bool) -> None:
    """Show what the tasks of a job printed: of all, or of TASK (m-3, r-00000, m-00003.1-7).

    Workers keep it beyond the job's end.
    """
    from minimr.backends.cluster_client import ClusterClient
    from minimr.backends.task_logs import task_stem

    stem = task_stem(task) if task else ""
    if stem is None:
        raise click.BadParameter(f"{task!r}: name a task as in m-3 or r-00000", param_hint="TASK")
    client = ClusterClient.discover()
    found = client.task_logs(JobId(job_id), stem)
    if not found:
        client.get_job(JobId(job_id))  # an error if there is no such job
    if as_json:
        echo_json(
            [
                {
                    "attempt": log.attempt,
                    "worker": worker.id,
                    "host": worker.host,
                    "size_bytes": log.size_bytes,
                    "text": log.content.decode(errors="replace"),
                }
                for worker, log in found
            ]
        )
        return
    if not found:
        terminal.say(
            f"{job_id}: no worker that is alive has kept anything that {task or 'it'} printed"
        )
    for worker, log in found:
        terminal.say(f"--- {log.attempt} on {worker.host} ({worker.id}), {log.size_bytes:,} bytes")
        text = log.content.decode(errors="replace")
        click.echo(text, nl=not text.endswith("\n"))


def _elapsed_ms(status: JobStatus) -> int:
    return (status.ended_ms or time.time_ns() // 1_000_000) - status.submitted_ms


def _as_dict(status: JobStatus) -> dict[str, object]:
    return {
        "id": status.job_id,
        "name": status.name,
        "state": status.state.value,
        "output": status.output,
        "maps": {"done": status.maps_done, "total": status.map_count},
        "reduces": {"done": status.reduces_done, "total": status.reduce_count},
        "input_bytes": status.input_bytes,
        "shuffle_bytes": status.shuffle_bytes,
        "counters": dict(sorted(status.counters.items())),
        "phase_ms": status.phase_ms,
        "submitted_ms": status.submitted_ms,
        "ended_ms": status.ended_ms,
        "error": status.failure.error if status.failure else None,
        "skew": _skew_dict(status.skew) if status.skew else None,
    }


def _skew_dict(skew: Skew) -> dict[str, object]:
    return {
        "records": skew.record_count,
        "partitions": skew.partition_count,
        "largest_partition": skew.largest_partition,
        "largest_records": skew.largest_record_count,
        "hot_keys": [{"key": hot.key, "records": hot.record_count} for hot in skew.hot_keys],
    }


def _skew_lines(skew: Skew) -> list[str]:
    """Which partition and which keys had most of the pairs."""
    mean = skew.record_count / skew.partition_count
    lines = [
        (
            f"largest   r-{skew.largest_partition:05d} {skew.largest_record_count:,} pairs, "
            f"{skew.largest_record_count / mean:.1f} x the mean"
        )
    ]
    lines.extend(
        f"hot key   {hot.key} {hot.record_count:,} pairs, "
        f"{hot.record_count / skew.record_count:.1%}"
        for hot in skew.hot_keys
        if hot.record_count >= skew.record_count * _HOT_SHARE
    )
    return lines


def _describe(status: JobStatus) -> str:
    lines = [
        f"job       {status.job_id}",
        f"state     {status.state.value}",
        f"output    {status.output}",
        f"maps      {status.maps_done}/{status.map_count}",
        f"input     {format_bytes(status.input_bytes)}",
        f"reduces   {status.reduces_done}/{status.reduce_count}",
        f"shuffle   {format_bytes(status.shuffle_bytes)}",
        f"elapsed   {format_duration_ms(_elapsed_ms(status))}",
    ]
    lines.extend(
        f"phase     {name} {format_duration_ms(ms)}" for name, ms in status.phase_ms.items()
    )
    lines.extend(f"counter   {name} {value:,}" for name, value in sorted(status.counters.items()))
    if status.skew is not None:
        lines.extend(_skew_lines(status.skew))
    if status.failure is not None:
        lines.append(f"failed    {status.failed_task}: {status.failure.error}")
        if status.failure.traceback:
            lines.append(status.failure.traceback.rstrip())
    return "\n".join(lines)
