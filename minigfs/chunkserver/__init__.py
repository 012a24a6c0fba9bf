"""Chunkserver: chunk files, their store, the write chain; ``process`` is the shell."""
