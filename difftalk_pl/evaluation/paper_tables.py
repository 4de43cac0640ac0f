"""Numbers of the paper's tables 1 to 3, to print beside one's own.

Source: Shen et al., DiffTalk: Crafting Diffusion Models for Generalized Audio-Driven Portraits Animation, CVPR 2023,
arXiv 2301.03786. The ground truth of set A differs from table to table, so that sets A and B are not fixed sets of
clips; clips, crops and SyncNet are not published either. None of these numbers can be compared with measured ones.
"""

from collections.abc import Iterator
from typing import Any, Literal

PaperTable = Literal["table1", "table2", "table3", "all"]
PAPER_MEASURES = ("psnr", "ssim", "lpips", "sync_offset", "sync_confidence")
TABLES = {  # by table and test set; None where the paper prints a dash
    ("table1", "A"): {
        "ground truth": (None, None, None, 0, 9.610),
        "without smoothing": (33.67, 0.944, 0.024, 1, 5.484),
        "with smoothing": (34.17, 0.946, 0.024, 1, 6.287),
    },
    ("table1", "B"): {
        "ground truth": (None, None, None, 0, 9.553),
        "without smoothing": (32.70, 0.924, 0.031, 1, 5.197),
        "with smoothing": (32.73, 0.925, 0.031, 1, 5.387),
    },
    ("table2", "A"): {
        "ground truth": (None, None, None, 4, 7.762),
        "without progressive reference": (34.17, 0.946, 0.024, 1, 6.287),
        "with progressive reference": (33.95, 0.946, 0.023, -1, 6.662),
    },
    ("table2", "B"): {
        "ground truth": (None, None, None, 3, 8.947),
        "without progressive reference": (32.73, 0.925, 0.031, 1, 5.387),
        "with progressive reference": (33.02, 0.925, 0.030, 1, 5.999),
    },
    ("table3", "A"): {
        "ground truth": (None, None, None, -1, 8.979),
        "MakeItTalk": (18.77, 0.544, 0.19, -4, 3.936),
        "Wav2Lip": (25.50, 0.761, 0.140, -2, 8.936),
        "AD-NeRF": (27.89, 0.885, 0.072, -2, 5.639),
        "DFRF": (28.60, 0.892, 0.068, -1, 5.999),
        "DiffTalk": (34.54, 0.950, 0.024, -1, 6.381),
    },
    ("table3", "B"): {
        "ground truth": (None, None, None, -2, 7.924),
        "MakeItTalk": (17.70, 0.648, 0.129, -3, 3.416),
        "Wav2Lip": (33.38, 0.942, 0.027, -3, 9.385),
        "AD-NeRF": (30.14, 0.947, 0.023, -3, 4.246),
        "DFRF": (33.57, 0.949, 0.025, -2, 4.432),
        "DiffTalk": (34.01, 0.950, 0.020, -1, 5.639),
    },
}


def paper_rows(table: PaperTable) -> Iterator[dict[str, Any]]:
    """Yield the rows of one table or of all, as `table` prints them."""
    for (name, test_set), rows in TABLES.items():
        group = f"paper, table {name[-1]}, set {test_set} (not comparable)"
        for method, values in rows.items() if table in (name, "all") else ():
            yield {"protocol": group, "title": f"{method} (paper)", **dict(zip(PAPER_MEASURES, values))}
