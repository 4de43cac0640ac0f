"""What one training or evaluation item is, and in which order they come."""
