"""Heads: a neck's {"p3": …} in, the typed outputs of one task out."""
