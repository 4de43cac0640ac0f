"""Evaluation and media logging, kept out of the LightningModules."""
