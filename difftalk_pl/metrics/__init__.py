"""Measures of generated frames as torchmetrics; they see tensors only."""
