"""The composition root: a cluster made of minigfs, the coordinator, Ray and workers.

`LocalCluster` is loaded at its first use, so that importing this package stays cheap.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minimr.cluster.local_cluster import LocalCluster

__all__ = ["LocalCluster"]


def __getattr__(name: str) -> object:
    if name != "LocalCluster":
        raise AttributeError(f"module 'minimr.cluster' has no attribute {name!r}")
    from minimr.cluster.local_cluster import LocalCluster

    globals()[name] = LocalCluster
    return LocalCluster
