"""The data that a diffusion model was trained on, as far as other data must agree with it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataContract:
    """What the data of a trained model must be.

    Args:
        features: kind of audio features.
        mask: policy.
        size: side of the frames.
        features_model: name of the network behind learned features; empty for none or unknown.
        features_sha256: its hash.
    """

    features: str = "mfcc"
    mask: str = "mouth_safe"
    size: int = 256
    features_model: str = ""
    features_sha256: str = ""

    def knows(self, features_sha256: str) -> bool:
        """Tell whether features of this origin may be those of the training; an unknown origin is trusted."""
        return "" in (self.features_sha256, features_sha256) or self.features_sha256 == features_sha256
