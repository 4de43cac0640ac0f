"""Callbacks of the Trainer: evaluation, media, loggers, checkpoints."""
