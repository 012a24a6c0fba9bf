"""SIGSTOP that has taken effect."""

import os
import signal
import subprocess

__all__ = ["stop"]


def stop(child: "subprocess.Popen[bytes]") -> None:
    """Return when no thread of the child runs any more. The kernel hands the signal to one of them,
    and until that one has its turn on a busy machine the others go on, and answer."""
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)
