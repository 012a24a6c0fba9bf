"""Framed msgspec messages with binary payloads: one codec, two ways of moving it."""
