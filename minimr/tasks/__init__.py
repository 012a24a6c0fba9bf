"""One attempt of one task: map, reduce or publish, run where the coordinator put it."""
