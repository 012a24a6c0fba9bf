"""Pure planning: which files a job reads, how they are split, what its outputs are called."""
