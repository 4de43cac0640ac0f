"""Mouth distance and identity, from landmarks and descriptors that dlib finds in both videos."""

from torch import Tensor
from torch.nn.functional import cosine_similarity

SIDE = 256  # pixels: distances are those in a frame of this side, whatever the frames' own
MOUTH = slice(48, 68)  # outer and inner lips


def lmd(generated: Tensor, true: Tensor) -> Tensor:
    """Return the mean distance of the 20 points of the mouth in every frame.

    Chen et al., "Lip Movements Generation at a Glance", ECCV 2018, move the mean points of the two mouths onto each
    other first. Here the generated frame is an edit of the true one, so the points are compared where they are.

    Args:
        generated, true: (T, 68, 2), fractions of the frame's side.

    Returns:
        (T,) float64, pixels of a frame of 256 x 256.
    """
    return SIDE * (generated[:, MOUTH].double() - true[:, MOUTH].double()).norm(dim=-1).mean(-1)


def identity_similarity(generated: Tensor, true: Tensor) -> Tensor:
    """Return the cosine similarity of the face descriptors of every frame, 1 for the same ones.

    Values are comparable only between descriptors of one network, and those of different people are far from
    orthogonal: with dlib's, five real clips had 0.97 and more within a clip and 0.74 to 0.86 between two people.

    Args:
        generated, true: (N, 128).

    Returns:
        (N,) float64.
    """
    return cosine_similarity(generated.double(), true.double(), dim=1)
