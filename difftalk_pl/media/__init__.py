"""Video and sound files: frames at exact times, 16 kHz audio, mp4 writing."""
