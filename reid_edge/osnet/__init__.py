"""The network, its complexity, its checkpoints and its exact rewrites."""
