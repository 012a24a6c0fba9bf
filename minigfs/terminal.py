"""The edge between a command and the terminal, shared by the `minigfs` and `minimr` commands.

stdout carries results only, stderr the rest. Every failure ends as one line on stderr and an exit
code: 0 done, 1 the work failed, 2 wrong usage, 3 no cluster (unreachable, no quorum, wrong token),
4 damage found, 130 interrupted. An error with ``details`` (a user function's traceback) shows them
above its line. A reader that goes away (``| head``) ends a command quietly with
141, as it ends cat. An error class outside `minigfs.errors` takes part by an ``exit_code``
attribute.
"""

import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import click
import msgspec

from minigfs.errors import (
    ClusterError,
    DamageError,
    InvalidConfig,
    MinigfsError,
    NoSpace,
    SecurityError,
    UsageError,
)

__all__ = [
    "Terminal",
    "bytes_option",
    "echo_json",
    "exit_code_of",
    "format_bytes",
    "format_count",
    "format_table",
    "leave",
    "format_duration_ms",
    "parse_bytes",
    "run_cli",
    "terminal_options",
]

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NO_CLUSTER = 3
EXIT_DAMAGE = 4
EXIT_INTERRUPTED = 130
EXIT_READER_GONE = 141  # what the shell reports for a cat that SIGPIPE ended

_Command = TypeVar("_Command", bound=Callable[..., Any])
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?b?)", re.IGNORECASE)


@dataclass(slots=True)
class Terminal:
    """What the user asked of the output; the ``obj`` of every click context."""

    quiet: bool = False
    verbose: bool = False

    def say(self, line: str) -> None:
        """One line for people, on stderr, unless they want quiet."""
        if not self.quiet:
            click.echo(line, err=True)


def terminal_options(command: _Command) -> _Command:
    """Add --quiet and --verbose to a command or group; they work at every level."""

    def remember(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            terminal = context.ensure_object(Terminal)
            if parameter.name == "quiet":
                terminal.quiet = True
            else:
                terminal.verbose = True

    for name, text in (
        ("--verbose", "Say more, and show the traceback of an error."),
        ("--quiet", "Say nothing but results and errors."),
    ):
        command = click.option(
            name, is_flag=True, expose_value=False, is_eager=True, callback=remember, help=text
        )(command)
    return command


def run_cli(command: click.Command, *, program: str, arguments: Sequence[str] | None = None) -> int:
    """Run a click command by the rules of this module; its exit code, for `leave`."""
    _open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that the terminal's encoding lacks is shown escaped: it ends no listing.
        sys.stdout.reconfigure(errors="backslashreplace")
    terminal = Terminal()
    try:
        code = _run(command, program, arguments, terminal)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whatever is still buffered would fail again, loudly, when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_READER_GONE
    return code


def leave(code: int) -> NoReturn:
    """End the process without taking the interpreter apart.

    That would cost a small job a tenth of a second and free only what the kernel frees anyway. A
    command has closed what it opened when it returns; nothing of ours waits for ``atexit``.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _open_closed_streams() -> None:
    """Where the shell's ``>&-`` has left no stream, one that takes everything: for what we print,
    and so that no file of ours gets a number that child processes take for their output."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(null, mode, encoding="utf-8"))


def _run(
    command: click.Command, program: str, arguments: Sequence[str] | None, terminal: Terminal
) -> int:
    try:
        # Not command.main(), which ends the process by itself when a pipe breaks.
        arguments = sys.argv[1:] if arguments is None else arguments
        with command.make_context(program, list(arguments), obj=terminal) as context:
            command.invoke(context)
        return 0
    except click.exceptions.Exit as end:  # after --help and --version
        return end.exit_code
    except click.Abort:
        return _interrupted()
    except KeyboardInterrupt:
        return _interrupted()
    except click.ClickException as error:
        return _show_click_error(error, program)
    except BrokenPipeError:
        raise
    except Exception as error:
        # The outermost edge: nobody above could turn this into a line and an exit code.
        return _show_error(error, program, terminal)


def exit_code_of(error: BaseException) -> int:
    """The exit code an error ends a command with."""
    declared = getattr(error, "exit_code", None)
    if isinstance(declared, int):
        return declared
    match error:
        case NoSpace():
            return EXIT_FAILED
        case UsageError():
            return EXIT_USAGE
        case ClusterError() | SecurityError():
            return EXIT_NO_CLUSTER
        case DamageError():
            return EXIT_DAMAGE
        case KeyboardInterrupt():
            return EXIT_INTERRUPTED
    return EXIT_FAILED


def _interrupted() -> int:
    click.echo(err=True)  # the shell's prompt starts on a line of its own after ^C
    return EXIT_INTERRUPTED


def _show_click_error(error: click.ClickException, program: str) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":  # since click 8.2; the message is the help
        click.echo(error.format_message(), err=True)
        return EXIT_USAGE
    path = context.command_path if context is not None else program
    message = " ".join(error.format_message().split()).rstrip(".")
    if isinstance(error, click.UsageError):
        click.echo(f"{path}: {message} (see {path} --help)", err=True)
        return EXIT_USAGE
    click.echo(f"{path}: {message}", err=True)
    return error.exit_code


def _show_error(error: Exception, program: str, terminal: Terminal) -> int:
    if terminal.verbose:
        traceback.print_exception(error)
    match error:
        case MinigfsError():
            message = error.message
        case OSError(strerror=str(reason)):
            message = f"{error.filename}: {reason}" if error.filename is not None else reason
        case _:
            hint = "" if terminal.verbose else " (--verbose shows where)"
            message = f"internal error: {type(error).__name__}: {error}{hint}"
    details = getattr(error, "details", "")  # what a user's own function raised, say
    if details:
        click.echo(details.rstrip(), err=True)
    click.echo(f"{program}: {' '.join(message.split())}", err=True)
    return exit_code_of(error)


def echo_json(value: object) -> None:
    """Print a value (msgspec structs welcome) as JSON, made for reading by people as well."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def format_bytes(count: int) -> str:
    """A size for people: ``1.5 MiB``; exact below 1 KiB."""
    size = float(count)
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"


def format_count(count: int, noun: str) -> str:
    """``1 file``, ``1,200 files``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def format_duration_ms(milliseconds: int) -> str:
    """A duration for people: ``85 ms``, ``3.2 s``, ``2 m 05 s``."""
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    if milliseconds < 100_000:
        return f"{milliseconds / 1000:.1f} s"
    minutes, seconds = divmod(round(milliseconds / 1000), 60)
    return f"{minutes} m {seconds:02d} s"


def parse_bytes(text: str) -> int:
    """Bytes of ``4096``, ``64MiB``, ``64M`` (both 64 * 1024**2) or ``64MB`` (64 * 1000**2)."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidConfig(f"{text!r} is not a size: write it like 4096, 64MiB or 1GB")
    number, prefix, suffix = match.groups()
    base = 1000 if prefix and suffix.lower() == "b" else 1024
    exponent = "kmgtp".index(prefix.lower()) + 1 if prefix else 0
    return int(float(number) * base**exponent) if "." in number else int(number) * base**exponent


def bytes_option(flag: str, name: str, *, help: str) -> Callable[[_Command], _Command]:  # noqa: A002 - click's word
    """A click option whose value is a size in bytes; see `parse_bytes`."""

    def convert(
        context: click.Context, parameter: click.Parameter, value: str | None
    ) -> int | None:
        if value is None:
            return None
        try:
            return parse_bytes(value)
        except InvalidConfig as error:
            raise click.BadParameter(error.message, context, parameter) from error

    return click.option(flag, name, metavar="SIZE", callback=convert, help=help)


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of left-aligned columns, as wide as their widest cell; no header, no header line."""
    table = [header, *rows] if header else rows
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
