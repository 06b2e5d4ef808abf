"""Drawing what was found, or the truth, on images."""
