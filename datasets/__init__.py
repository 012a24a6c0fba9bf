"""Seeded generators of input data, installed as ``minimr.datasets``."""
