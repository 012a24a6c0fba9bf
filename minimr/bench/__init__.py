"""``minimr bench``: whole systems in real processes, with their peers in the same run."""
