"""Show what a trained network responds to: clusters of its gate weights, and maps of its activations."""
