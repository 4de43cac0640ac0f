"""Who trains, validates and tests; windows to batches."""
