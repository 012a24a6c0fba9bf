"""The master's decisions, pure: namespace, chunks, placement, garbage; ``process`` is the shell."""
