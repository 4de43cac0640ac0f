"""Plain networks and samplers: tensors in, tensors out. Knows nothing of files, data or Lightning."""
