"""Backbones: an image in, {"c2": …, "c3": …, "c4": …, "c5": …} out; level "cN" has stride 2**N."""
