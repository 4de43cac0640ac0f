"""What is computed from speech."""
