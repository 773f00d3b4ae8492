"""The receiving end: collect, store, search (no torch)."""
