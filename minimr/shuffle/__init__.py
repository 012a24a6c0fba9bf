"""From map output to reduce input: hash, sort, segments, fetch and merge."""
