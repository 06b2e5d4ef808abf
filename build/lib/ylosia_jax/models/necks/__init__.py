"""Necks: a backbone's {"c3": …} in, {"p3": …} out."""
