"""Run one attempt of one task, in the calling thread: the only entry to this package.

An attempt leaves nothing behind but its result: a segment below ``scratch``, or a file of its own
below the job's staging directory. Whatever stops it becomes one `AttemptFailed`.
"""

import errno

from minimr.messages import (
    AttemptResult,
    Failure,
    FailureKind,
    MapAssignment,
    PublishAssignment,
    ReduceAssignment,
)
from minimr.tasks.context import AttemptContext
from minimr.tasks.failures import AttemptFailed, failure_of
from minimr.tasks.functions import with_functions
from minimr.tasks.map_task import run_map
from minimr.tasks.publish_task import run_publish
from minimr.tasks.reduce_task import run_reduce

__all__ = ["AttemptContext", "AttemptFailed", "run_attempt"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def run_attempt(context: AttemptContext) -> AttemptResult:
    """The attempt's result; its counters count only what this attempt did.

    Raises
    ------
    AttemptFailed
        For every failure but an interrupt of the process.
    """
    try:
        return _run(context)
    except OSError as error:
        if error.errno not in _FULL:
            raise AttemptFailed(failure_of(error)) from error
        text = (
            f"no space left below {context.scratch} for intermediate data: free some, or use a "
            "larger disk (TMPDIR for the local backend, --dir for a cluster)"
        )
        raise AttemptFailed(Failure(kind=FailureKind.NO_SPACE, error=text)) from error
    except Exception as error:  # anything a user's code, a disk or we did wrong ends this attempt
        raise AttemptFailed(failure_of(error)) from (error.__cause__ or error)


def _run(context: AttemptContext) -> AttemptResult:
    match context.assignment:
        case MapAssignment() as assignment:
            with with_functions(context, "map") as ready:
                return run_map(ready, assignment)
        case ReduceAssignment() as assignment:
            with with_functions(context, "reduce") as ready:
                return run_reduce(ready, assignment)
        case PublishAssignment() as assignment:
            return run_publish(context, assignment)
