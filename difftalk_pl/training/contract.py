"""What a diffusion model expects of its data, so that no other data reach it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataContract:
    """What the data must be for a trained model.

    Args:
        features: kind of audio features.
        mask: policy.
        size: side of the frames.
        features_model: name of what made learned features, for people; empty where nothing did or nobody knows.
        features_sha256: its hash, by which it is recognised.
    """

    features: str = "mfcc"
    mask: str = "mouth_safe"
    size: int = 256
    features_model: str = ""
    features_sha256: str = ""

    def agrees_with(self, data: "DataContract") -> bool:
        """Whether the model may see these data. Features whose origin one side does not know are taken on trust."""
        same_kind = (self.features, self.mask, self.size) == (data.features, data.mask, data.size)
        return same_kind and self.knows(data.features_sha256)

    def knows(self, features_sha256: str) -> bool:
        """Whether features of this origin may be those of the training."""
        return "" in (self.features_sha256, features_sha256) or self.features_sha256 == features_sha256
