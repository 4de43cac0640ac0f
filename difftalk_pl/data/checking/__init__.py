"""Prepared datasets, checked and repaired."""
