"""Metrics, the judge of a clip, results and tables."""
