"""The bytes of a COMMAND entry: the format of the log, which must never change its meaning."""

import pytest

from minigfs.errors import CorruptLog
from minigfs.ids import Origin, SessionId
from minigfs.raft import NodeId
from minigfs.replication.commands import (
    CloseSession,
    LoggedCommand,
    MemberAddress,
    OpenSession,
    decode_logged_command,
    decode_member_command,
    decode_session_command,
    decode_session_id,
    encode_logged_command,
    encode_member_command,
    encode_session_command,
    encode_session_id,
)


@pytest.mark.parametrize(
    ("logged", "encoded"),
    [
        (LoggedCommand("fs", 5, b"\x01"), "94a2667305c40101c0"),
        (LoggedCommand("fs", 5, b"", Origin(SessionId(7), 3, 2)), "94a2667305c40093070302"),
    ],
)
def test_a_logged_command_keeps_its_bytes(logged: LoggedCommand, encoded: str) -> None:
    assert encode_logged_command(logged).hex() == encoded
    assert decode_logged_command(bytes.fromhex(encoded), 1) == logged


def test_a_command_without_the_later_fields_is_read() -> None:
    assert decode_logged_command(bytes.fromhex("93a2667305c400"), 1).origin is None


def test_what_is_no_command_is_a_corrupt_log_that_names_the_entry() -> None:
    with pytest.raises(CorruptLog, match="entry 17 of the log"):
        decode_logged_command(b"\xc0", 17)


def test_commands_of_replication_itself_keep_their_bytes() -> None:
    opened, closed = OpenSession(), CloseSession(SessionId(9))
    address = MemberAddress(NodeId("n1"), "h:1")
    assert encode_session_command(opened).hex() == "9101"
    assert encode_session_command(closed).hex() == "920209"
    assert encode_member_command(address).hex() == "9301a26e31a3683a31"
    assert decode_session_command(bytes.fromhex("9101")) == opened
    assert decode_session_command(bytes.fromhex("920209")) == closed
    assert decode_member_command(encode_member_command(address)) == address
    assert decode_session_id(encode_session_id(SessionId(1 << 40))) == 1 << 40
