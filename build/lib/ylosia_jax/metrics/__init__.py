"""Thin adapters from per-image truth and detections to well-kept evaluators, and to `metrics.json`."""
