"""Client library: metadata calls, locations, reader, writer. Blocking sockets, no loop thread."""
