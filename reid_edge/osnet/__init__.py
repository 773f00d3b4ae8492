"""The network: its variants, complexity, checkpoints and exact rewrites."""
