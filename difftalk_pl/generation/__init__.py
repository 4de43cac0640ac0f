"""From conditions to finished frames: sampling, references, temporal consistency."""
