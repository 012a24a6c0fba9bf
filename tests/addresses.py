"""Addresses for servers of tests that are to be found there again."""

from minigfs.cluster.storage import free_loopback_ports

__all__ = ["free_address"]


def free_address() -> str:
    """One that stays free until somebody listens there, and again between two who do.

    A port that the kernel picked is not: it is lent to the next outgoing connection of any test.
    """
    (port,) = free_loopback_ports(1)
    return f"127.0.0.1:{port}"
