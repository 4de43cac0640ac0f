"""Cached latents: on the disk, in the page cache, in memory."""
