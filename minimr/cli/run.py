"""``minimr run``: a job from the command line."""

import signal
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

import click

from minigfs.terminal import (
    Terminal,
    bytes_option,
    echo_json,
    format_bytes,
    format_count,
    format_duration_ms,
    terminal_options,
)
from minimr.cli.home import home_option
from minimr.cli.progress import progress_view
from minimr.errors import JobUsageError
from minimr.format_options import is_format_setting
from minimr.registry import load_job

if TYPE_CHECKING:
    from minimr.runner import Result

__all__ = ["run"]


@click.command()
@click.argument("job")
@click.option(
    "--input", "-i", "inputs", multiple=True, required=True, metavar="URL",
    help="A file, a directory or a glob; may be given several times.",
)  # fmt: skip
@click.option("--output", "-o", required=True, metavar="URL", help="A directory to be made.")
@click.option("--reducers", "-r", type=click.IntRange(1, 100_000), help="Number of output parts.")
@bytes_option("--split-size", "split_size", help="Input bytes of one map task.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="An option of the job or format."
)
@bytes_option("--memory", "memory", help="Bound of one executor.  [default: 1GiB]")
@click.option(
    "--backend", type=click.Choice(["auto", "local", "ray"]), default="auto", show_default=True,
    help="local: this machine, no cluster; ray: the cluster of $MINIMR_HOME; auto: local if all "
    "URLs are local files.",
)  # fmt: skip
@click.option(
    "--processes", type=click.IntRange(0, 1024),
    help="Local backend: worker processes; 0 runs everything in this one, in order (for pdb).",
)  # fmt: skip
@click.option(
    "--backup-policy", type=click.Choice(["rate", "paper", "none"]), default="rate",
    show_default=True, help="When a slow task is run a second time.",
)  # fmt: skip
@click.option(
    "--task-timeout", type=click.IntRange(1), default=600, show_default=True, metavar="SECONDS",
    help="An attempt without any progress for so long is given up.",
)  # fmt: skip
@click.option(
    "--max-bad", type=click.IntRange(0), default=0, show_default=True, metavar="N",
    help="Set up to N bad records aside, in _quarantine files of the output.",
)  # fmt: skip
@click.option(
    "--overwrite", is_flag=True, help="Replace the output of an earlier job, at the very end."
)
@click.option("--explain", is_flag=True, help="Print the plan and run nothing.")
@home_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@terminal_options
@click.pass_obj
def run(
    terminal: Terminal,
    job: str,
    inputs: tuple[str, ...],
    output: str,
    reducers: int | None,
    split_size: int | None,
    settings: tuple[str, ...],
    memory: int | None,
    backend: str,
    processes: int | None,
    backup_policy: str,
    task_timeout: int,
    max_bad: int,
    overwrite: bool,
    explain: bool,
    as_json: bool,
) -> None:
    """Run JOB and print where its output lies.

    JOB is an installed job (url-count, grep, inverted-index, ...), path/to/file.py:NAME or
    package.module:NAME.

    \b
    minimr run url-count --input access.log --output counts
    minimr run url-count --input 'logs/*.log.gz' --output counts --set top=10
    minimr run mine.py:job --input minigfs:///logs/ --output minigfs:///out --reducers 4
    """
    from minigfs.transport.memory import keep_freed_memory
    from minimr import runner

    # Whoever stops us so wants what Ctrl-C does: the job ends, and nothing of it is left.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    keep_freed_memory()  # blocks of input come and go by the megabyte
    options = _parse_settings(settings)
    loaded = load_job(job, {n: v for n, v in options.items() if not is_format_setting(n)})
    if explain:
        plan = runner.explain(
            loaded, input=inputs, output=output, reducers=reducers, split_size=split_size,
            backend=backend, processes=processes, memory=memory, overwrite=overwrite,
            settings=options,
        )  # fmt: skip
        if as_json:
            echo_json(plan.summary())
        else:
            click.echo(plan.text())
        return
    # What user code prints in this process is no result: stdout is for those.
    with progress_view(terminal.quiet) as view, redirect_stdout(sys.stderr):
        result = runner.run(
            loaded, input=inputs, output=output, reducers=reducers, split_size=split_size,
            backend=backend, processes=processes, memory=memory, overwrite=overwrite,
            backup_policy=backup_policy, task_timeout_s=task_timeout, max_bad=max_bad,
            settings=options, on_status=view.show,
        )  # fmt: skip
    if as_json:
        echo_json(result.summary())
        return
    click.echo(result.output)
    terminal.say(_summary(result))


def _parse_settings(pairs: tuple[str, ...]) -> dict[str, str]:
    settings: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise JobUsageError(f"--set {pair}: write NAME=VALUE, as in --set top=10")
        if name in settings:
            raise JobUsageError(f"--set {name}: given twice")
        settings[name] = value
    return settings


def _summary(result: "Result") -> str:
    """What a person wants to know after a run; the phases add up to the total."""
    counters = result.counters
    records = counters.get("map.input_records", 0)
    phases = ", ".join(
        f"{name} {format_duration_ms(ms)}"
        for name, ms in result.phases_ms.items()
        if name != "total"
    )
    written = counters.get("output.records", 0)
    output_bytes = sum(part.size_bytes for part in result.parts)
    lines = [
        f"{result.job_id}: {records:,} records read, {written:,} written",
        f"{format_count(len(result.parts), 'part')}, {format_bytes(output_bytes)}",
        f"{format_duration_ms(result.phases_ms['total'])} = {phases}",
    ]
    bad = counters.get("map.bad_records", 0)
    if bad:
        place = f"{result.output}/_quarantine-*"
        lines.insert(1, f"{format_count(bad, 'bad record')} set aside in {place}")
    malformed = counters.get("map.malformed_records", 0)
    if malformed:
        lines.insert(1, f"{format_count(malformed, 'malformed record')} not counted")
    return "\n".join(lines)
