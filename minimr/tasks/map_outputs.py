"""What an executor knows of its job's map outputs (MapReduce sections 3.1 and 3.3).

A reduce may begin while maps run: it fetches what is there, asks what there is besides, and so on
until it has its part of every map's output. If a map runs again meanwhile, it keeps what it has
fetched, and fetches from the new place what it has not. What cannot be fetched it says when it asks
again: the coordinator has those maps run once more, and may take the slot for that.
"""

from collections.abc import Callable, Sequence

from minimr.errors import SegmentDamaged
from minimr.ids import WorkerId
from minimr.messages import GetMapOutputs, MapOutput, MapOutputNews, NewsHeard, ReduceAssignment
from minimr.shuffle.fetch import Missed
from minimr.tasks.failures import AttemptCancelled

__all__ = ["AskOutputs", "MapOutputs"]

AskOutputs = Callable[[GetMapOutputs], MapOutputNews]
"""Waits until there is news, or nobody needs the attempt any more."""


class MapOutputs:
    """Of one job: shared by the reduces that an executor runs one after the other."""

    def __init__(self, ask: AskOutputs) -> None:
        self._ask = ask
        self._known: dict[int, MapOutput] = {}
        self._heard = NewsHeard()

    def known(self, assignment: ReduceAssignment) -> tuple[MapOutput, ...]:
        """What there is to begin with."""
        self._learn(assignment.map_outputs)
        return tuple(self._known.values())

    def more(
        self,
        assignment: ReduceAssignment,
        worker_id: WorkerId,
        missed: Sequence[Missed],
    ) -> tuple[MapOutput, ...]:
        """Wait for outputs that are new or at a new place; ``missed`` could not be fetched.

        Raises `AttemptCancelled` if nobody needs the attempt any more.
        """
        news = self._ask(
            GetMapOutputs(
                worker_id=worker_id,
                attempt=assignment.attempt,
                heard=self._heard,
                missed=tuple(output.attempt for output, _ in missed),
                damaged_count=sum(isinstance(error, SegmentDamaged) for _, error in missed),
            )
        )
        if not news.is_wanted:
            raise AttemptCancelled
        for index in news.gone:
            self._known.pop(index, None)
        self._learn(news.outputs)
        self._heard = news.heard
        return news.outputs

    def _learn(self, outputs: Sequence[MapOutput]) -> None:
        self._known.update((output.map_index, output) for output in outputs)
