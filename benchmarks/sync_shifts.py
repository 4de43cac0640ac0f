"""Does a SyncNet hear by how much sound is shifted? On seconds that it was never trained on.

    python -m difftalk_pl fit -c experiments/syncnet/small.yaml --data.root data/real --run runs/syncnet/real
    python benchmarks/sync_shifts.py --data data/real --checkpoint runs/syncnet/real/checkpoints/last.ckpt \
        --clips '[dfrf_cnn2,dfrf_french]' --holdout_seconds 15

The sound of every clip's held-out end is moved against its frames by whole frames. Late sound has a negative offset, so
the offset has to fall by exactly as much. `pairs` is the share of (lip window, speech) pairs, in sync and 1 to 15
frames off, in which the distance in sync is the smaller one, 0.5 by chance; `window` the same for the best of all 31
shifts, 1/31 by chance. Both are of the sound as it is.
"""

from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jsonargparse import auto_cli

from difftalk_pl.data.clips import SAMPLES_PER_FRAME, Clip, open_clips
from difftalk_pl.data.sync import bounds
from difftalk_pl.evaluation.sync import LARGEST_SHIFT, SyncJudge, SyncStream, shifted_distances, sync_scores

CHUNK = 32
MEASURED = ("offset", "moved by", "confidence", "distance", "median", "pairs", "window")
COLUMNS = ("clip", "windows", "sound late by", *MEASURED)


def run(
    data: Path,
    checkpoint: Path,
    clips: list[str],
    holdout_seconds: float = 15.0,
    late: list[int] = [-3, 0, 5],  # noqa: B006
    crop: Literal["face_crop", "whole_frame"] = "face_crop",
) -> None:
    """Print the table.

    Args:
        data: a prepared dataset.
        checkpoint: of SyncNetTraining, a folder that export made, or the published syncnet_v2.model.
        clips: names.
        holdout_seconds: as in training, at most a fifth of a clip.
        late: frames by which the sound comes later than it should.
        crop: what the network sees.
    """
    judge = SyncJudge(checkpoint, crop)
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    for clip in (clip for clip in open_clips(data) if clip.name in clips):
        start, end = bounds(clip.frames, holdout_seconds, "last")
        unshifted = judged(judge, clip, start, end, 0)
        zero = sync_scores(*unshifted).offset
        for frames in late:
            lips, speech = unshifted if frames == 0 else judged(judge, clip, start, end, frames)
            scores = sync_scores(lips, speech)
            cells = [f"{scores.offset}", f"{scores.offset - zero:+d}", f"{scores.confidence:.3f}"]
            cells += [f"{scores.distance:.3f}", f"{scores.distance + scores.confidence:.3f}"]
            cells += [f"{share:.3f}" for share in accuracy(lips, speech)] if frames == 0 else ["", ""]
            print(f"| {clip.name} | {len(lips)} | {frames} | {' | '.join(cells)} |", flush=True)


def judged(judge: SyncJudge, clip: Clip, start: int, end: int, late: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of a part of a clip with the sound of so many frames before."""
    reader = clip.reader()
    stream = SyncStream(judge, clip.landmarks[start:end], reader[0].shape[0])
    for first in range(start, end, CHUNK):
        stream.add(np.stack([reader[frame] for frame in range(first, min(first + CHUNK, end))]))
    sound = clip.audio()[start * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME]
    moved = np.zeros_like(sound)
    count = len(sound) - abs(late) * SAMPLES_PER_FRAME
    target, source = (slice(-count, None), slice(count)) if late > 0 else (slice(count), slice(-count, None))
    moved[target] = sound[source]
    return stream.finish(moved)


def accuracy(lips: torch.Tensor, speech: torch.Tensor) -> tuple[float, float]:
    """Pairs and windows that are told right, of windows whose shifts all lie within the part."""
    whole = shifted_distances(lips, speech)[LARGEST_SHIFT:-LARGEST_SHIFT]
    middle = whole[:, [LARGEST_SHIFT]]
    shifts = list(chain(range(LARGEST_SHIFT), range(LARGEST_SHIFT + 1, whole.shape[1])))
    found = whole.argmin(dim=1) == LARGEST_SHIFT
    return float((middle < whole[:, shifts]).float().mean()), float(found.float().mean())


if __name__ == "__main__":
    auto_cli(run, as_positional=False)
