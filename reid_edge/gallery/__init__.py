"""The receiving end: collector, stores, search, erasure, audit, servers."""
