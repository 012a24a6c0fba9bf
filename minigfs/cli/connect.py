"""Which cluster a command speaks to, and the options that say so."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minigfs.cluster import ClusterLayout, default_home, load_state, running_pid
from minigfs.errors import Unreachable

if TYPE_CHECKING:
    from minigfs.client.admin import MasterAdmin
    from minigfs.client.client import MinigfsClient
    from minigfs.client.config import ClientConfig

__all__ = ["ClusterChoice", "cluster_options", "home_option", "layout_of"]

home_option = click.option(
    "--dir", "home", help="Home of the cluster [default: $MINIMR_HOME, else ~/.minimr]."
)


def layout_of(home: str | None) -> ClusterLayout:
    """The layout of ``--dir``, else of the default home."""
    return ClusterLayout(Path(home).expanduser().absolute() if home else default_home())


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterChoice:
    """What the user said about where the cluster is; all None: found as `ClientConfig` finds it."""

    home: str | None = None
    masters: str | None = None
    token_file: str | None = None

    @contextmanager
    def administrate(self) -> Iterator["MasterAdmin"]:
        """For requests to the masters as a group, which may have no leader."""
        from minigfs.client.admin import MasterAdmin

        admin = MasterAdmin(self._config())
        try:
            yield admin
        finally:
            admin.close()

    def connect(self) -> "MinigfsClient":
        """A client of the cluster. `ClusterError`, at once, if there is none or it is stopped."""
        from minigfs.client.client import MinigfsClient
        from minigfs.transport.memory import keep_freed_memory

        keep_freed_memory()  # this process is a command's own, whose work is to move bytes
        return MinigfsClient(self._config())

    def _config(self) -> "ClientConfig":
        from minigfs.client.config import ClientConfig

        config = ClientConfig.discover(
            masters=self.masters, token_file=self.token_file, home=self.home
        )
        layout = layout_of(self.home)
        state = load_state(layout)
        is_ours = state is not None and state.masters == config.masters
        if state is not None and is_ours and not any(map(running_pid, state.with_role("master"))):
            raise Unreachable(
                f"the cluster in {layout.home} is not running: "
                "start it with `minimr up` (or `minigfs up`)"
            )
        return config


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --dir, --masters and --token-file; the command gets a `ClusterChoice` as ``cluster``."""

    @home_option
    @click.option("--masters", help="HOST:PORT,... of the masters, if not those of --dir.")
    @click.option("--token-file", help="File with the cluster's token, if not that of --dir.")
    @functools.wraps(command)
    def with_cluster(
        *positional: Any,
        home: str | None,
        masters: str | None,
        token_file: str | None,
        **arguments: Any,
    ) -> Any:
        cluster = ClusterChoice(home=home, masters=masters, token_file=token_file)
        return command(*positional, cluster=cluster, **arguments)

    return with_cluster
