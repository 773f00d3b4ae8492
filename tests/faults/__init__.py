"""Tools that make faults for tests: damaged files, power cuts, hostile sockets."""
