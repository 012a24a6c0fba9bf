"""Histories whose answer is known: each anomaly a replicated store has shown, beside its harmless
twin.

A history is written as a picture. Each line is a client; an operation is ``[call => result]``,
placed where it happened: ``[`` is its invocation, ``]`` its return. ``=> ?`` ends in ``>`` instead
of ``]``: the outcome is unknown and the operation stays open.
"""

import re

import pytest

from tests.linearizability.checker import Answer, check
from tests.linearizability.history import Operation, Value
from tests.linearizability.models import MODELS

_OPERATION = re.compile(r"\[(?P<call>[^\[\]>]*?)(?:=> (?P<result>[^\]>?]*))?(?P<end>\]|\?>)")


def _value(text: str) -> Value:
    """``3``, ``true``, ``nil``, ``1,2`` (a list; ``1,`` has one element), ``a,1;b,2`` (nested)."""
    text = text.strip()
    if ";" in text:
        return tuple(_value(item) for item in text.split(";") if item)
    if "," in text:
        return tuple(_value(item) for item in text.split(",") if item)
    words: dict[str, Value] = {"nil": None, "true": True, "false": False}
    if text in words:
        return words[text]
    return int(text) if text.lstrip("-").isdigit() else text


def picture(text: str) -> list[Operation]:
    operations = []
    for client, line in enumerate(text.strip("\n").splitlines()):
        for found in _OPERATION.finditer(line):
            known = found["end"] == "]"
            operations.append(
                Operation(
                    client=f"c{client}",
                    call=tuple(_value(word) for word in found["call"].split()),
                    invoked_at=found.start(),
                    returned_at=found.end() if known else None,
                    result=_value(found["result"] or "nil"),
                )
            )
    assert operations, "a picture without operations proves nothing"
    return operations


REGISTER_GOOD = {
    "nothing written, nothing read": """
        [read x => nil]
    """,
    "write, then read": """
        [write x 1]  [read x => 1]
    """,
    "a read beside a write sees the old value": """
        [write x 1]  [write x 2      ]
                       [read x => 1]
    """,
    "a read beside a write sees the new value": """
        [write x 1]  [write x 2      ]
                       [read x => 2]
    """,
    "two reads beside a write see old, then new": """
        [write x 1]  [write x 2                        ]
                       [read x => 1]  [read x => 2]
    """,
    "two concurrent writes end in either order": """
        [write x 1  ]
         [write x 2 ]
                        [read x => 1]
    """,
    "cas from the value that stands": """
        [write x 1]  [cas x 1 2 => true]  [read x => 2]
    """,
    "cas from another value is refused": """
        [write x 1]  [cas x 3 2 => false]  [read x => 1]
    """,
    "of two concurrent cas from one value one is refused": """
        [write x 1]  [cas x 1 2 => true ]  [read x => 2]
                      [cas x 1 3 => false ]
    """,
    "concurrent cas form a chain": """
        [write x 1]  [cas x 2 3 => true ]  [read x => 3]
                      [cas x 1 2 => true ]
    """,
    "an unknown write is never seen": """
        [write x 1]  [write x 2 => ?>
                                      [read x => 1]  [read x => 1]
    """,
    "an unknown write is seen at once": """
        [write x 1]  [write x 2 => ?>
                                      [read x => 2]  [read x => 2]
    """,
    "an unknown write is seen late": """
        [write x 1]  [write x 2 => ?>
                                      [read x => 1]  [read x => 2]
    """,
    "an unknown write comes between two later writes": """
        [write x 1]  [write x 2 => ?>
                                      [write x 3]  [read x => 3] [read x => 2] [write x 4]
    """,
    "an unknown cas explains a value": """
        [write x 1]  [cas x 1 5 => ?>
                                       [read x => 5]
    """,
    "an unknown read is no evidence": """
        [write x 1]  [read x => ?>
                                    [read x => 1]
    """,
    "two unknown writes of the same value happen at different times": """
        [write x 1 => ?>
         [write x 1 => ?>
                          [read x => 1]  [write x 2]  [read x => 2]  [read x => 1]
    """,
    "keys are independent": """
        [write x 1]  [write y 2]  [read x => 1]
            [read y => nil]            [read y => 2]
    """,
}

REGISTER_BAD = {
    "stale read: the value before an acknowledged write": """
        [write x 1]  [write x 2]  [read x => 1]
    """,
    "stale read by another client": """
        [write x 1]  [write x 2]
                                   [read x => 1]
    """,
    "lost write: the register is empty again": """
        [write x 1]  [read x => nil]
    """,
    "a value that nobody wrote": """
        [write x 1]  [read x => 7]
    """,
    "a value of another key": """
        [write x 1]  [write y 2]  [read x => 2]
    """,
    "a value read before its write was invoked": """
        [read x => 1]  [write x 1]
    """,
    "reads go back: new, then old": """
        [write x 1]  [write x 2                        ]
                       [read x => 2]  [read x => 1]
    """,
    "reads of two clients go back": """
        [write x 1]  [write x 2                        ]
                       [read x => 2]
                                      [read x => 1]
    """,
    "split brain: two cas from one value succeed": """
        [write x 1]  [cas x 1 2 => true ]
                      [cas x 1 3 => true ]
    """,
    "split brain: two acknowledged writes, each reader sees its own": """
        [write x 1 ]            [read x => 1]              [read x => 1]
         [write x 2 ]                          [read x => 2]
    """,
    "lost update: a cas that succeeded is not seen": """
        [write x 1]  [cas x 1 2 => true]  [read x => 1]
    """,
    "a cas that was refused is seen": """
        [write x 1]  [cas x 3 2 => false]  [read x => 2]
    """,
    "a cas is refused from the value that stands": """
        [write x 1]  [cas x 1 2 => false]
    """,
    "a cas chain without its first link": """
        [write x 1]  [cas x 2 3 => true ]  [read x => 3]
    """,
    "an unknown write is seen, then unseen": """
        [write x 1]  [write x 2 => ?>
                                      [read x => 2]  [read x => 1]
    """,
    "an unknown write is seen before it was invoked": """
        [write x 1]  [read x => 2]  [write x 2 => ?>
    """,
    "an unknown write happens twice": """
        [write x 1]  [write x 2 => ?>
                               [read x => 2]  [write x 3]  [read x => 3]  [read x => 2]
    """,
    "an unknown cas cannot explain a value from a value that never stood": """
        [write x 1]  [cas x 4 5 => ?>
                                       [read x => 5]
    """,
    "two unknown writes do not explain three appearances": """
        [write x 1 => ?>
         [write x 1 => ?>
             [write x 2]  [read x => 1]  [write x 3]  [read x => 1]  [write x 4]  [read x => 1]
    """,
}

KV_GOOD = {
    "appends are read in order": """
        [append k 1 => 1]  [append k 2 => 2]  [get k => 1,2]
    """,
    "concurrent appends are read in either order": """
        [append k 1 => 2 ]
         [append k 2 => 1 ]
                            [get k => 2,1]
    """,
    "put replaces, delete removes": """
        [append k 1 => 1]  [put k 5]  [get k => 5,]  [delete k]  [get k => nil]
    """,
    "an unknown append is in the list from a later read on": """
        [append k 1 => 1]  [append k 2 => ?>
                                             [get k => 1,]  [get k => 1,2]
    """,
    "an append acknowledged without its length": """
        [append k 1]  [append k 2]  [get k => 1,2]
    """,
}

KV_BAD = {
    "duplicate append: a retry was executed twice": """
        [append k 1 => 1]  [append k 2 => 2]  [get k => 1,2,2]
    """,
    "duplicate append of an unknown outcome": """
        [append k 1 => ?>
                          [get k => 1,1]
    """,
    "lost append": """
        [append k 1 => 1]  [append k 2 => 2]  [get k => 1,]
    """,
    "two appends were told the same length": """
        [append k 1 => 1  ]
         [append k 2 => 1  ]
    """,
    "acknowledged appends change places": """
        [append k 1 => 1]  [append k 2 => 2]  [get k => 2,1]
    """,
    "two readers see different orders": """
        [append k 1 ]
         [append k 2 ]
                       [get k => 1,2]
                       [get k => 2,1]
    """,
    "a deleted value comes back": """
        [put k 5]  [delete k]  [get k => 5,]
    """,
    "a shorter list after a longer one": """
        [append k 1 => ?>
                          [get k => 1,]  [get k => nil]
    """,
}

COUNTER_GOOD = {
    "concurrent adds": """
        [add n 1 => 3 ]
         [add n 2 => 2 ]   [get n => 3]
    """,
    "an unknown add is counted once": """
        [add n 5 => ?>
                       [get n => 0]  [get n => 5]
    """,
}

COUNTER_BAD = {
    "a retry is counted twice": """
        [add n 1 => 1]  [get n => 2]
    """,
    "an unknown add is counted twice": """
        [add n 5 => ?>
                       [get n => 5]  [get n => 10]
    """,
    "two adds were told the same sum": """
        [add n 1 => 1 ]
         [add n 1 => 1 ]
    """,
}

NAMESPACE_GOOD = {
    "create, rename, stat": """
        [mkdir /t]  [create /t/a 7 true]  [rename /t/a /t/b false]  [stat /t/b => 7]
    """,
    "of two exclusive creates one is refused": """
        [create /t/a 1 true ]                                    [stat /t/a => 1]
         [create /t/a 2 true => refused,file-exists ]
    """,
    "a rename beside a listing is seen before or after": """
        [create /t/a 7 true]  [rename /t/a /t/b false                                        ]
                                [list /t => a,7;]
    """,
    "an unknown rename is seen late": """
        [create /t/a 7 true]  [rename /t/a /t/b false => ?>
                                       [stat /t/a => 7] [stat /t/a => refused,file-missing]
    """,
    "a directory moves with what is in it": """
        [create /t/d/a 7 true]  [rename /t/d /t/e false]  [stat /t/e/a => 7]
    """,
    "a clone is of one moment, and what it was made from stays": """
        [create /t/d/a 7 true]  [clone /t/d /t/e 8 false]  [stat /t/e/a => 8]  [stat /t/d/a => 7]
    """,
    "trees that no rename connects are judged apart": """
        [mkdir /t]  [create /u/a 1 true]  [stat /t => directory]  [remove /u true => 1,1]
    """,
}

NAMESPACE_BAD = {
    "a renamed file stands at both places": """
        [create /t/a 7 true]  [rename /t/a /t/b false]  [stat /t/b => 7]  [stat /t/a => 7]
    """,
    "a renamed file stands at neither place": """
        [create /t/a 7 true]  [rename /t/a /t/b false => ?>
                               [stat /t/a => refused,file-missing]
                                                                      [list /t => ;]
    """,
    "two exclusive creates succeed": """
        [create /t/a 1 true ]
         [create /t/a 2 true ]
    """,
    "one rename is executed twice: the retry is refused": """
        [create /t/a 7 true]  [rename /t/a /t/b false => refused,file-missing]  [stat /t/b => 7]
    """,
    "two renames of one file succeed": """
        [create /t/a 7 true]  [rename /t/a /t/b false ]
                               [rename /t/a /t/c false ]
    """,
    "a removed file comes back": """
        [create /t/a 7 true]  [remove /t/a false => 1,0]  [stat /t/a => 7]
    """,
    "a stale leader lists an old tree": """
        [create /t/a 7 true]  [create /t/b 8 true]  [list /t => a,7;]
    """,
    "an acknowledged file is not there after a failover": """
        [create /t/a 7 true]  [stat /t/a => refused,file-missing]
    """,
    "a rename takes the place of another file unasked": """
        [create /t/a 7 true]  [create /t/b 8 true]  [rename /t/a /t/b false]
    """,
}

CASES = [
    pytest.param(model, answer, text, id=f"{model}: {name}")
    for model, answer, histories in (
        ("register", Answer.OK, REGISTER_GOOD),
        ("register", Answer.ILLEGAL, REGISTER_BAD),
        ("kv", Answer.OK, KV_GOOD),
        ("kv", Answer.ILLEGAL, KV_BAD),
        ("counter", Answer.OK, COUNTER_GOOD),
        ("counter", Answer.ILLEGAL, COUNTER_BAD),
        ("namespace", Answer.OK, NAMESPACE_GOOD),
        ("namespace", Answer.ILLEGAL, NAMESPACE_BAD),
    )
    for name, text in histories.items()
]


@pytest.mark.parametrize(("model", "answer", "text"), CASES)
def test_the_known_answer_is_found(model: str, answer: Answer, text: str) -> None:
    verdict = check(picture(text), MODELS[model])

    assert verdict.answer is answer, str(verdict)
