"""Numbers of the paper's tables 1 to 3, to print beside one's own.

Source: Shen et al., DiffTalk: Crafting Diffusion Models for Generalized Audio-Driven Portraits Animation, CVPR 2023,
arXiv 2301.03786. The ground truth of set A differs from table to table, so that sets A and B are not fixed sets of
clips; clips, crops and SyncNet are not published either. None of these numbers can be compared with measured ones.
"""

from typing import Literal, NamedTuple

PaperTable = Literal["table1", "table2", "table3", "all"]
TestSet = Literal["A", "B"]


class PaperRow(NamedTuple):
    """A row; None where the paper prints a dash. Fields are called as the measures of results.json."""

    method: str
    psnr: float | None
    ssim: float | None
    lpips: float | None
    sync_offset: float
    sync_confidence: float


TABLES: dict[str, dict[str, tuple[PaperRow, ...]]] = {
    "table1": {  # audio smoothing
        "A": (
            PaperRow("ground truth", None, None, None, 0, 9.610),
            PaperRow("without smoothing", 33.67, 0.944, 0.024, 1, 5.484),
            PaperRow("with smoothing", 34.17, 0.946, 0.024, 1, 6.287),
        ),
        "B": (
            PaperRow("ground truth", None, None, None, 0, 9.553),
            PaperRow("without smoothing", 32.70, 0.924, 0.031, 1, 5.197),
            PaperRow("with smoothing", 32.73, 0.925, 0.031, 1, 5.387),
        ),
    },
    "table2": {  # progressive inference
        "A": (
            PaperRow("ground truth", None, None, None, 4, 7.762),
            PaperRow("without progressive reference", 34.17, 0.946, 0.024, 1, 6.287),
            PaperRow("with progressive reference", 33.95, 0.946, 0.023, -1, 6.662),
        ),
        "B": (
            PaperRow("ground truth", None, None, None, 3, 8.947),
            PaperRow("without progressive reference", 32.73, 0.925, 0.031, 1, 5.387),
            PaperRow("with progressive reference", 33.02, 0.925, 0.030, 1, 5.999),
        ),
    },
    "table3": {  # comparison with other methods
        "A": (
            PaperRow("ground truth", None, None, None, -1, 8.979),
            PaperRow("MakeItTalk", 18.77, 0.544, 0.19, -4, 3.936),
            PaperRow("Wav2Lip", 25.50, 0.761, 0.140, -2, 8.936),
            PaperRow("AD-NeRF", 27.89, 0.885, 0.072, -2, 5.639),
            PaperRow("DFRF", 28.60, 0.892, 0.068, -1, 5.999),
            PaperRow("DiffTalk", 34.54, 0.950, 0.024, -1, 6.381),
        ),
        "B": (
            PaperRow("ground truth", None, None, None, -2, 7.924),
            PaperRow("MakeItTalk", 17.70, 0.648, 0.129, -3, 3.416),
            PaperRow("Wav2Lip", 33.38, 0.942, 0.027, -3, 9.385),
            PaperRow("AD-NeRF", 30.14, 0.947, 0.023, -3, 4.246),
            PaperRow("DFRF", 33.57, 0.949, 0.025, -2, 4.432),
            PaperRow("DiffTalk", 34.01, 0.950, 0.020, -1, 5.639),
        ),
    },
}
