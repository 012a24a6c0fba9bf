"""``minimr admin``: that of ``minigfs``, whose new masters also host the coordinator."""

from collections.abc import Mapping

from minigfs.cli.admin import admin_group
from minigfs.cluster import ProcessKind

__all__ = ["admin"]


def _kinds() -> Mapping[str, ProcessKind]:
    from minimr.cluster.deploy import CLUSTER_KINDS

    return CLUSTER_KINDS


admin = admin_group(_kinds)
