"""``minimr bench``: what this release does on this machine, beside its peers if they are there."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from minigfs.terminal import Terminal, bytes_option, echo_json, format_table, terminal_options

if TYPE_CHECKING:
    from minimr.bench.raft import RaftFigures
    from minimr.bench.sort import KeyKind, MachineLimits, SortFigures

__all__ = ["bench"]

DEFAULT_SIZE_BYTES = 512_000_000
DEFAULT_SORT_BYTES = 1_000_000_000


@click.group()
def bench() -> None:
    """Measure on this machine, with real processes and real disks."""


@bench.command()
@click.option("--clients", default="1,16,64,256", show_default=True, metavar="N,N,...",
              help="Numbers of clients that write at the same time.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(0.1), default=5.0, show_default=True,
              help="How long each number of clients is measured.")  # fmt: skip
@click.option("--kills", type=click.IntRange(0), default=20, show_default=True,
              help="How often the leader is killed to measure the failover.")  # fmt: skip
@click.option("--peers", is_flag=True, help="The same load on etcd and PySyncObj.")
@click.option("--scratch", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="A directory on the disk to measure.  [default: /tmp's]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@terminal_options
@click.pass_obj
def raft(
    terminal: Terminal,
    clients: str,
    seconds: float,
    kills: int,
    peers: bool,
    scratch: Path | None,
    as_json: bool,
) -> None:
    """Commits per second of three masters, and how long a dead leader stops writers.

    Each commit is a command of 256 bytes through the client library, on the disks of a majority
    when it is answered. A cluster of its own is made for it and thrown away.
    """
    from minimr.bench import raft as ours
    from minimr.bench.raft_peers import check_raft_peers, measure_etcd, measure_pysyncobj
    from minimr.bench.scratch import scratch_cluster

    counts = _counts(clients)
    if peers:
        check_raft_peers()  # before anybody waits for the rest
    terminal.say(f"minimr: 3 masters, {seconds:g} s for each of {clients} clients")
    with scratch_cluster(scratch, masters=ours.MASTER_COUNT, chunkservers=1) as masters:
        rates = ours.measure_rates(masters, counts, seconds)
        terminal.say(f"minimr: {kills} kills of the leader")
        stalls = ours.measure_failover(masters, kills)
    figures = [ours.RaftFigures.of("minimr", rates, stalls)]
    if peers:
        terminal.say("etcd: the same")
        figures.append(measure_etcd(counts, seconds, kills, scratch))
        terminal.say("PySyncObj: rates only")
        figures.append(measure_pysyncobj(counts, seconds, scratch))
    if as_json:
        echo_json(figures)
    else:
        click.echo(_table(figures))


@bench.command()
@bytes_option("--size", "size_bytes", help="Of the large file written and read [default: 512MB].")
@click.option("--seconds", type=click.FloatRange(0.1), default=3.0, show_default=True,
              help="How long each loop of small requests is measured.")  # fmt: skip
@click.option("--peers", is_flag=True, help="The same loads on MooseFS.")
@click.option("--scratch", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="A directory on the disk to measure.  [default: /tmp's]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@terminal_options
@click.pass_obj
def gfs(
    terminal: Terminal,
    size_bytes: int | None,
    seconds: float,
    peers: bool,
    scratch: Path | None,
    as_json: bool,
) -> None:
    """The file system: data, small files, metadata, repair, the longest stall.

    A cluster of its own, three masters and four chunkservers, is made for it and thrown away. The
    machine's own limits are measured in the same run.
    """
    from minimr.bench.figures import figure_table
    from minimr.bench.gfs import GfsLoad, measure_minigfs, measure_moosefs
    from minimr.bench.machine import measure_machine
    from minimr.bench.moosefs import check_moosefs

    if peers:
        check_moosefs()  # before anybody waits for the rest
    size_bytes = size_bytes or DEFAULT_SIZE_BYTES
    terminal.say("the machine's own limits")
    machine = measure_machine(scratch, size_bytes)
    load = GfsLoad(machine=machine, size_bytes=size_bytes, seconds=seconds, directory=scratch)
    figures = []
    for figure in itertools.chain(measure_minigfs(load), measure_moosefs(load) if peers else ()):
        terminal.say(f"{figure.system}: {figure.what}: {figure.shown} {figure.unit}")
        figures.append(figure)
    if as_json:
        echo_json({"machine": machine, "figures": figures})
        return
    limits = ((name, value / 1e6) for name, value in msgspec.structs.asdict(machine).items())
    click.echo(", ".join(f"{name} {rate:,.0f} MB/s" for name, rate in limits))
    click.echo("\n".join(format_table(*figure_table(figures))))


@bench.command()
@click.option("--workers", type=click.IntRange(2, 10_000), default=16, show_default=True)
@click.option("--maps", type=click.IntRange(1, 100_000), default=64, show_default=True)
@click.option("--task-ms", type=click.IntRange(1), default=1_000, show_default=True,
              help="What a map takes on a usual worker.")  # fmt: skip
@click.option("--slowdown", type=click.IntRange(1, 1_000), default=10, show_default=True,
              help="How many times slower the one slow worker is.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@terminal_options
def stragglers(workers: int, maps: int, task_ms: int, slowdown: int, as_json: bool) -> None:
    """What backup tasks are worth: a map that sleeps, on workers one of which is slow.

    The coordinator is the masters' own, the workers are played on a virtual clock, so the figures
    are the same on every machine.
    """
    from minimr.bench.stragglers import measure, ratios

    figures = measure(workers=workers, maps=maps, task_ms=task_ms, slowdown=slowdown)
    marks = ratios(figures)
    if as_json:
        echo_json({"figures": figures, "marks": marks})
        return
    rows = [
        (
            of.scenario,
            of.policy,
            f"{of.makespan_s:.2f}",
            f"{of.slot_seconds:.1f}",
            f"{of.wasted_slot_seconds:.1f}",
            f"{of.backups_launched} / {of.backups_won} / {of.backups_wasted}",
        )
        for of in figures
    ]
    heads = ("workers", "policy", "time s", "slot s", "wasted s", "backups launched/won/wasted")
    click.echo("\n".join(format_table(heads, rows)))
    click.echo(
        f"one slow worker: none takes {marks.none_over_default:.2f} times as long as rate, rate "
        f"{marks.default_over_undisturbed:.2f} times as long as undisturbed; backups took "
        f"{marks.backup_slot_share:.1%} of the slot seconds, all slots together "
        f"{marks.extra_slot_share:+.1%}; backups of a skewed input: {marks.skew_backups}"
    )


@bench.command()
@bytes_option("--size", "size", help="Bytes to sort.  [default: 1GB]")
@click.option("--keys", default="uniform", show_default=True, metavar="KIND,KIND,...",
              help="uniform, skewed (as gensort -s has them), few (256), constant.")  # fmt: skip
@click.option("--skew", is_flag=True, help="Short for --keys skewed.")
@click.option("--reducers", "-r", type=click.IntRange(1, 100_000), help="As in minimr run.")
@bytes_option("--split-size", "split_size", help="As in minimr run.")
@bytes_option("--memory", "memory", help="As in minimr run.")
@click.option("--processes", type=click.IntRange(0, 1024), help="As in minimr run.")
@click.option("--scratch", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="A directory on the disk to measure.  [default: /tmp's]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@terminal_options
@click.pass_obj
def sort(
    terminal: Terminal,
    size: int | None,
    keys: str,
    skew: bool,
    reducers: int | None,
    split_size: int | None,
    memory: int | None,
    processes: int | None,
    scratch: Path | None,
    as_json: bool,
) -> None:
    """Generate records of the sort benchmark, sort them on this machine, validate the result.

    Prints input bytes a second and core, from the start of the sort's process to its end, beside
    the machine's own limits measured in the same run; with several kinds of keys also how much
    longer than the first each takes. With --memory the kernel bounds every executor.
    """
    from minimr.bench.sort import SortFigures, SortRun, measure_limits, measure_sort

    kinds = _key_kinds("skewed" if skew else keys)
    terminal.say("measuring the machine")
    limits = measure_limits(scratch)
    sorts: list[SortFigures] = []
    for kind in kinds:
        wanted = SortRun(
            records=(DEFAULT_SORT_BYTES if size is None else size) // 100,
            keys=kind,
            reducers=reducers,
            split_bytes=split_size,
            memory_bytes=memory,
            processes=processes,
        )
        sorts.append(measure_sort(wanted, scratch, terminal.say))
        if not as_json:
            click.echo(_sort_text(sorts[-1], sorts[0]))
    if as_json:
        echo_json({"sorts": sorts, "limits": limits})
    else:
        click.echo(_limits_text(limits))


def _key_kinds(text: str) -> "list[KeyKind]":
    from minimr.bench.sort import KEY_KINDS

    chosen = [kind for name in text.split(",") for kind in KEY_KINDS if kind == name]
    if len(chosen) != len(text.split(",")):
        raise click.BadParameter(f"{text!r}: give kinds of {', '.join(KEY_KINDS)} with commas",
                                 param_hint="--keys")  # fmt: skip
    return chosen


def _limits_text(limits: "MachineLimits") -> str:
    return (
        f"machine    disk write {limits.disk_write_mb_s:,.0f} MB/s, "
        f"memcpy {limits.memcpy_mb_s:,.0f} MB/s, argsort {limits.argsort_mb_s:,.0f} MB/s"
    )


def _sort_text(figures: "SortFigures", first: "SortFigures") -> str:
    beside = (
        "" if figures is first
        else f", {figures.sort_s / first.sort_s:.2f} times as long as {first.keys}"
    )  # fmt: skip
    phases = ", ".join(f"{n} {ms / 1000:.2f} s" for n, ms in figures.phases_ms.items())
    return "\n".join(
        [
            (
                f"sorted     {figures.records:,} records with {figures.keys} keys, "
                f"{figures.input_mb:,.0f} MB"
            ),
            f"time       {figures.sort_s:.2f} s{beside} ({phases})",
            (
                f"rate       {figures.mb_s:,.0f} MB/s, {figures.mb_s_per_core:,.1f} MB/s per core "
                f"({figures.cores} cores)"
            ),
            (
                f"validated  in order, checksum {figures.checksum}, "
                f"{figures.duplicate_keys:,} duplicate keys"
            ),
        ]
    )


def _counts(clients: str) -> list[int]:
    try:
        counts = [int(part) for part in clients.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise click.BadParameter(f"{clients!r}: give numbers with commas, such as 1,16,64",
                                 param_hint="--clients")  # fmt: skip
    return counts


def _table(figures: "list[RaftFigures]") -> str:
    rows = [
        (
            of.system,
            str(rate.clients),
            f"{rate.per_second:,.0f}",
            f"{rate.latency.p50_ms:.2f}",
            f"{rate.latency.p99_ms:.2f}",
            f"{rate.latency.max_ms:.0f}",
            f"{rate.fdatasync.p50_ms:.2f} / {rate.fdatasync.p99_ms:.2f}",
        )
        for of in figures
        for rate in of.rates
    ]
    header = (
        "system",
        "clients",
        "commits/s",
        "p50 ms",
        "p99 ms",
        "max ms",
        "fdatasync p50 / p99 ms",
    )
    lines = format_table(header, rows)
    lines += [
        f"{of.system}: leader killed {len(of.failover_ms)} times, writers stalled "
        f"{of.failover.p50_ms:.0f} ms (median), {of.failover.max_ms:.0f} ms (worst)"
        for of in figures
        if of.failover is not None
    ]
    return "\n".join(lines)
