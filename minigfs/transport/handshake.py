"""Mutual proof of the cluster's token, in one round trip before the first request.

::

    client                                       server
      | HELLO     nonce, cluster id  -------------> |
      | <-- CHALLENGE  nonce, proof, cluster id --- |   the client checks the server's proof
      | PROOF     proof              -------------> |   the server checks the client's
      | REQUEST   ...  (sent without waiting)  ---> |   and only then reads on

A proof is HMAC-SHA256 under the token over the prover's role, both nonces and both cluster ids:
fresh nonces make a recorded proof worthless, the role makes one that is sent back worthless.
This module is pure but for the nonces, which its callers bring.
"""

import hashlib
import hmac
from dataclasses import dataclass

from minigfs.config import TransportLimits
from minigfs.errors import AuthenticationFailed, ProtocolError
from minigfs.transport.messages import Message
from minigfs.transport.security import Security

__all__ = [
    "HANDSHAKE_LIMITS",
    "NONCE_BYTES",
    "Challenge",
    "ClientHandshake",
    "Hello",
    "Proof",
    "ServerHandshake",
]

PROTOCOL_VERSION = 1
NONCE_BYTES = 32
HANDSHAKE_LIMITS = TransportLimits(body_bytes_max=4096, payload_bytes_max=0)
"""What a stranger may make us allocate."""


class Hello(Message, frozen=True):
    version: int
    nonce: bytes
    cluster_id: str


class Challenge(Message, frozen=True):
    nonce: bytes
    proof: bytes
    cluster_id: str


class Proof(Message, frozen=True):
    proof: bytes


def prove(token: bytes, role: str, *facts: bytes) -> bytes:
    """Each fact goes in with its length, so that no two lists of facts look alike."""
    mac = hmac.new(token, digestmod=hashlib.sha256)
    for fact in (b"minigfs", bytes([PROTOCOL_VERSION]), role.encode(), *facts):
        mac.update(len(fact).to_bytes(4, "big") + fact)
    return mac.digest()


def facts_of(hello: Hello, server_nonce: bytes, server_cluster_id: str) -> tuple[bytes, ...]:
    return (hello.nonce, server_nonce, hello.cluster_id.encode(), server_cluster_id.encode())


def check_cluster(mine: str, theirs: str) -> None:
    if mine and theirs and mine != theirs:
        raise AuthenticationFailed(
            f"the peer belongs to cluster {theirs!r}, not to {mine!r}: check the address"
        )


def check_nonce(nonce: bytes) -> None:
    if len(nonce) != NONCE_BYTES:
        raise ProtocolError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")


@dataclass(frozen=True, slots=True)
class ClientHandshake:
    """The connecting side, with a nonce that is used once."""

    security: Security
    nonce: bytes

    def hello(self) -> Hello:
        return Hello(
            version=PROTOCOL_VERSION, nonce=self.nonce, cluster_id=self.security.cluster_id
        )

    def answer(self, challenge: Challenge) -> Proof:
        """Our proof, once the server's is found right; else ``AuthenticationFailed``."""
        check_nonce(challenge.nonce)
        facts = facts_of(self.hello(), challenge.nonce, challenge.cluster_id)
        expected = prove(self.security.token, "server", *facts)
        if not hmac.compare_digest(expected, challenge.proof):
            raise AuthenticationFailed(
                "the server does not know our token: use the token file of its cluster"
            )
        check_cluster(self.security.cluster_id, challenge.cluster_id)
        return Proof(proof=prove(self.security.token, "client", *facts))


@dataclass(frozen=True, slots=True)
class ServerHandshake:
    """The accepting side, with a nonce that is used once."""

    security: Security
    nonce: bytes

    def challenge(self, hello: Hello) -> Challenge:
        if hello.version != PROTOCOL_VERSION:
            raise ProtocolError(
                f"the client speaks version {hello.version} of the protocol, this server "
                f"{PROTOCOL_VERSION}: install the same release on both"
            )
        check_nonce(hello.nonce)
        check_cluster(self.security.cluster_id, hello.cluster_id)
        facts = facts_of(hello, self.nonce, self.security.cluster_id)
        return Challenge(
            nonce=self.nonce,
            proof=prove(self.security.token, "server", *facts),
            cluster_id=self.security.cluster_id,
        )

    def verify(self, hello: Hello, proof: Proof) -> None:
        """Return if the client knows the token; else ``AuthenticationFailed``."""
        facts = facts_of(hello, self.nonce, self.security.cluster_id)
        expected = prove(self.security.token, "client", *facts)
        if not hmac.compare_digest(expected, proof.proof):
            raise AuthenticationFailed(
                "wrong token: use the token file of the cluster this server belongs to"
            )
