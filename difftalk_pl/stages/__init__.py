"""The two training stages as LightningModules, and the latents that join them."""
