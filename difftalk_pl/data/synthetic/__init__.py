"""Drawn people with synthetic speech."""
