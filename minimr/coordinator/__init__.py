"""The MapReduce paper's master, pure: events and time in, effects out."""
