"""Ylosia: one network, one pass, every answer about the objects in an image."""
