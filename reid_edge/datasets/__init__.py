"""What labelled images there are, from the folders that datasets unpack to; no torch."""
