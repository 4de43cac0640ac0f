"""How far the generated mouth is from the true one, in landmarks that were found in both videos."""

from torch import Tensor

from difftalk_pl.evaluation.frame_mean import FrameMean

SIDE = 256  # pixels: distances are those in a frame of this side, whatever the frames' own
MOUTH = slice(48, 68)  # outer and inner lips


def lmd(generated: Tensor, true: Tensor) -> Tensor:
    """Mean distance of the 20 points of the mouth in every frame.

    Chen et al., "Lip Movements Generation at a Glance", ECCV 2018, compare faces that lie at different places, and move
    the mean points of the two mouths onto each other first. Here the generated frame is an edit of the true one: a
    mouth of the right shape at the wrong place is wrong, so the points are compared where they are.

    Args:
        generated, true: (T, 68, 2), fractions of the frame's side.

    Returns:
        (T,) float64, pixels of a frame of 256 x 256.
    """
    return SIDE * (generated[:, MOUTH].double() - true[:, MOUTH].double()).norm(dim=-1).mean(-1)


class LandmarkDistance(FrameMean):
    """Mean over frames of `lmd`."""

    higher_is_better = False

    def update(self, generated: Tensor, true: Tensor) -> None:
        """Landmarks of a chunk of frames, as for `lmd`."""
        self.add(lmd(generated, true))
