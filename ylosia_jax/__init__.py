"""Ylosia: one network, one pass, every answer about the objects in an image."""

__version__ = "0.1.0"
