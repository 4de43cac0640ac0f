"""Video and sound files: exact times, streams, pixels."""
