"""OSNet checkpoints from labelled images: datasets in, safetensors out."""
