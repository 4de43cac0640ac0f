"""Whether the generated frames still show the same person."""

from torch import Tensor
from torch.nn.functional import cosine_similarity

from difftalk_pl.evaluation.frame_mean import FrameMean


def similarity(generated: Tensor, true: Tensor) -> Tensor:
    """Cosine similarity of the face descriptors of every frame, 1 for the same ones.

    Values are comparable only between descriptors of one network, and those of different people are far from
    orthogonal: with dlib's, five real clips had 0.97 and more within a clip and 0.74 to 0.86 between two people.

    Args:
        generated, true: (N, 128).

    Returns:
        (N,) float64.
    """
    return cosine_similarity(generated.double(), true.double(), dim=1)


class IdentitySimilarity(FrameMean):
    """Mean over frames of `similarity`."""

    higher_is_better = True

    def update(self, generated: Tensor, true: Tensor) -> None:
        """Descriptors of a chunk of frames, (N, 128) each."""
        self.add(similarity(generated, true))
