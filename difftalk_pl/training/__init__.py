"""The three LightningModules, the frozen codec, weights on disk."""
