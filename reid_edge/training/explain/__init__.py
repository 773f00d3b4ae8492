"""What a trained network looks at: clusters of its gates, and maps of its activations."""
