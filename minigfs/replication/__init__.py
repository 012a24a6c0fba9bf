"""Durable log and the hosting of replicated machines on it: propose, make durable, apply."""
