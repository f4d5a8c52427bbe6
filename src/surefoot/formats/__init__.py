"""File formats: safetensors headers and weights, and the key names of other programs."""
