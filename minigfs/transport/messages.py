"""What a message is: a request names its reply, so a call is typed from end to end.

A request class is declared once, beside the service that answers it::

    class Stat(Request[FileStatus], frozen=True, kw_only=True, tag="fs.stat"):
        path: str

The tag is the request's name on the wire and never changes. Replies are plain frozen structs and
need no tag: the caller knows what to expect.
"""

from typing import Any, Generic, TypeVar, get_args

import msgspec

__all__ = ["Empty", "Message", "ReplyT", "Request", "reply_type"]


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Base of replies and of everything nested in a message. Unknown fields are ignored."""


class Empty(Message, frozen=True):
    """The reply of a request whose success is all there is to say."""


ReplyT = TypeVar("ReplyT", bound=Message)


class Request(msgspec.Struct, Generic[ReplyT], frozen=True, kw_only=True):
    """Base of all requests; a subclass gives ``tag=`` and the type of its reply."""


def reply_type(request: type[Request[Any]]) -> type[Message]:
    """The ``ReplyT`` a request class was declared with."""
    (base,) = (b for b in request.__dict__["__orig_bases__"] if get_args(b))
    reply: type[Message]
    (reply,) = get_args(base)
    assert issubclass(reply, Message)
    return reply
