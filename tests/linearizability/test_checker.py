"""The checker against histories right by construction and against a brute-force opinion."""

import time
from dataclasses import replace
from random import Random

import pytest

from tests.linearizability.checker import Answer, Budget, check
from tests.linearizability.generated import CALLS, damaged, executed, has_order
from tests.linearizability.history import Call, Operation
from tests.linearizability.models import MODELS, KeyValueModel, RegisterModel

HISTORIES = 3000  # for each model


@pytest.mark.parametrize("name", sorted(MODELS))
def test_what_really_took_place_is_always_linearizable(name: str) -> None:
    for seed in range(150):
        rng = Random(seed)
        history = executed(
            MODELS[name],
            rng,
            CALLS[name],
            clients=rng.randint(1, 6),
            operations=rng.randint(1, 40),
            unknown_share=rng.choice([0.0, 0.1, 0.2]),
        )

        verdict = check(history, MODELS[name])

        assert verdict.ok, f"seed {seed}: {verdict}"


def _without_answers(history: list[Operation]) -> list[Operation]:
    """The history of a service that acknowledges an append and does not tell the length."""
    return [
        replace(operation, result=None) if operation.call[0] == "append" else operation
        for operation in history
    ]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_damaged_histories_get_the_answer_of_brute_force(name: str) -> None:
    answers = {True: 0, False: 0}
    for seed in range(HISTORIES):
        rng = Random(seed)
        history = executed(
            MODELS[name],
            rng,
            CALLS[name],
            clients=rng.randint(2, 4),
            operations=rng.randint(3, 7),
            unknown_share=rng.choice([0.0, 0.2, 0.4]),
        )
        history = damaged(_without_answers(history) if seed % 2 else history, rng)
        expected = has_order(MODELS[name], history)

        verdict = check(history, MODELS[name])

        assert verdict.ok == expected, f"seed {seed}: {verdict}\n" + "\n".join(map(str, history))
        answers[expected] += 1
    # Both answers must have been asked for often, or the agreement says little.
    assert min(answers.values()) > HISTORIES // 10, answers


def test_the_order_of_the_operations_in_the_list_does_not_matter() -> None:
    for seed in range(200):
        rng = Random(seed)
        history = executed(
            MODELS["kv"], rng, CALLS["kv"], clients=3, operations=8, unknown_share=0.2
        )
        history = damaged(history, rng)
        shuffled = rng.sample(history, len(history))

        assert check(shuffled, MODELS["kv"]).answer is check(history, MODELS["kv"]).answer


def _append_or_get(rng: Random, number: int) -> Call:
    return ("get", "k") if rng.random() < 0.5 else ("append", "k", number)


@pytest.mark.parametrize("lengths", [True, False])
@pytest.mark.parametrize("unknown_share", [0.0, 0.03])
def test_three_hundred_operations_of_ten_clients_on_one_key_take_less_than_a_second(
    unknown_share: float, lengths: bool
) -> None:
    worst = 0.0
    for seed in range(5):
        history = executed(
            KeyValueModel(),
            Random(seed),
            _append_or_get,
            clients=10,
            operations=300,
            unknown_share=unknown_share,
        )
        history = history if lengths else _without_answers(history)
        begin = time.process_time()
        assert check(history, KeyValueModel()).ok
        worst = max(worst, time.process_time() - begin)

    assert worst < 1.0


def test_a_lost_append_late_in_a_long_history_is_found() -> None:
    history = executed(KeyValueModel(), Random(1), _append_or_get, clients=10, operations=300)
    place = max(n for n, each in enumerate(history) if each.call[0] == "get" and each.result)
    lying = history[place]
    assert isinstance(lying.result, tuple)
    history[place] = replace(lying, result=(*lying.result[:100], *lying.result[101:]))

    verdict = check(history, KeyValueModel())

    assert verdict.answer is Answer.ILLEGAL
    assert verdict.failure is not None
    assert verdict.failure.stuck == history[place]


def _write(value: int, begin: int, end: int | None) -> Operation:
    return Operation(client="w", call=("write", "x", value), invoked_at=begin, returned_at=end)


def _read(value: int, begin: int, end: int) -> Operation:
    call: Call = ("read", "x")
    return Operation(client="r", call=call, invoked_at=begin, returned_at=end, result=value)


def test_a_search_without_budget_says_unknown_and_never_ok() -> None:
    concurrent = [_write(value, value, 1000) for value in range(20)]
    impossible = [*concurrent, _read(99, 1001, 1002)]
    possible = [*concurrent, _read(7, 1001, 1002)]

    assert check(impossible, RegisterModel(), Budget(steps=1000)).answer is Answer.UNKNOWN
    assert check(possible, RegisterModel(), Budget(steps=10)).answer is Answer.UNKNOWN
    assert check(possible, RegisterModel()).answer is Answer.OK


def test_a_clock_that_runs_out_says_unknown() -> None:
    concurrent = [_write(value, value, 1000) for value in range(20)]
    asked: list[int] = []

    def expired() -> bool:
        asked.append(1)
        return len(asked) == 3

    verdict = check([*concurrent, _read(99, 1001, 1002)], RegisterModel(), Budget(expired=expired))

    assert verdict.answer is Answer.UNKNOWN
    assert len(asked) == 3


def test_a_proof_in_one_part_outweighs_another_that_used_up_its_budget() -> None:
    hard = [_write(value, value, 1000) for value in range(20)] + [_read(99, 1001, 1002)]
    wrong = Operation(client="z", call=("read", "z"), invoked_at=1, returned_at=2, result=5)

    verdict = check([*hard, wrong], RegisterModel(), Budget(steps=1000))

    assert verdict.answer is Answer.ILLEGAL


def test_an_operation_that_returns_when_another_begins_may_come_before_or_after_it() -> None:
    assert check([_write(1, 0, 10), _read(1, 10, 10)], RegisterModel()).ok
    assert check([_read(1, 0, 10), _write(1, 10, 20)], RegisterModel()).ok


def test_a_thousand_unknown_operations_that_are_never_seen_cost_nothing() -> None:
    lost = [_write(7, time_, None) for time_ in range(1000)]
    seen = [_write(1, 2000, 2001), _read(1, 2002, 2003), _read(7, 2004, 2005)]

    verdict = check([*lost, *seen], RegisterModel())

    assert verdict.ok
    assert verdict.steps < 10_000


def test_a_failure_says_how_far_it_got_and_what_cannot_come_next() -> None:
    history = [_write(1, 0, 10), _write(2, 20, 30), _read(1, 40, 50), _read(2, 60, 70)]

    verdict = check(history, RegisterModel())

    assert str(verdict) == (
        "not linearizable: 4 operations in 1 independent parts, model register, 6 steps\n"
        "longest order the model allows (2 operations):\n"
        '  w: write "x" 1 -> null  [0 .. 10]\n'
        '  w: write "x" 2 -> null  [20 .. 30]\n'
        "state then: 2\n"
        'cannot come next: r: read "x" -> 1  [40 .. 50]\n'
        "  the model answers 2"
    )
