"""Video files: H.264 and AAC in an mp4 that appears whole or not at all, with tags that say how it was made."""

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import count
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from difftalk_pl.errors import UserError
from difftalk_pl.media.audio import fit_audio
from difftalk_pl.media.colour import tag_colours, to_yuv
from difftalk_pl.media.files import MediaError, WriteError, open_media

TAG = "difftalk_pl"  # how a video was made, as JSON
# Key frames only. Beside `medium`, crf 5 on real clips: a quarter of the time to write, half of it to read, as CAVLC
# is simpler than CABAC.
INTRA = {"preset": "superfast", "tune": "psnr", "coder": "cavlc", "g": "1", "bf": "0"}
# swscale puts halved chroma in the middle of its pixels; untagged it is read at their left edge, which costs 8 dB.
CHROMA = {"chroma_sample_location": "center"}


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: float = 25,
    audio: np.ndarray | Iterator[np.ndarray] | None = None,
    rate: int = 16000,
    crf: float = 18,
    intra: bool = False,
    tags: dict[str, str] | None = None,
) -> int:
    """Write an mp4 that plays everywhere, and return the number of its frames.

    Args:
        frames: (H, W, 3) uint8 RGB, all of one size; an odd side is padded by one row or column of its edge.
        audio: (N,) int16 mono, or pieces of it; cut or padded to end with the last frame.
        crf: x264's quality, lower is better; 18 looks lossless.
        intra: every frame a key frame, so that `FrameReader` reaches any of them at once.
        tags: metadata of any key, e.g. how the file was made.

    Raises:
        MediaError: there are no frames.
        WriteError: the disk or the encoder fails.
    """
    target, exact, written = Path(path), Fraction(fps).limit_denominator(100_000), 0
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    options = {"crf": str(crf), **(INTRA if intra else {"preset": "medium"}), **CHROMA}
    reformatter, parts = VideoReformatter(), _audio_frames(audio, exact, rate)
    try:
        with av.open(temporary, "w", format="mp4", options={"movflags": "use_metadata_tags+faststart"}) as container:
            container.metadata.update(tags or {})
            for written, image in enumerate(frames, 1):
                if written == 1:
                    video, bits = container.add_stream("libx264", rate=exact, options=options), min(128_000, 4 * rate)
                    video.height, video.width = (side + side % 2 for side in image.shape[:2])
                    video.pix_fmt, video.codec_context.thread_count = "yuv420p", 2  # every thread holds frames
                    tag_colours(video.codec_context, image.shape[0])
                    sound = None if audio is None else container.add_stream("aac", rate, layout="mono", bit_rate=bits)
                frame = to_yuv(image, reformatter)
                frame.pts, frame.time_base = written - 1, 1 / exact
                container.mux(video.encode(frame))
                if sound is not None:  # side by side, so that the muxer never holds one back for the other
                    container.mux(sound.encode(next(parts)))
            if not written:
                raise MediaError(f"{target}: no frames to write")
            container.mux(video.encode(None))
            if sound is not None:
                container.mux(sound.encode(None))
        os.replace(temporary, target)
    except av.FFmpegError as error:
        raise WriteError(f"{target}: cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return written


def read_tags(path: Path) -> dict[str, str]:
    """Return the metadata of a file. Raises MediaError where it is no media file."""
    with open_media(path) as container:
        return dict(container.metadata)


def refuse_target(path: Path, inputs: Iterable[Path]) -> None:
    """Make the folder of a video that is to be written.

    Raises:
        UserError: the file cannot be written, is one of the inputs, or exists and is no video of this project.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and any(source.exists() and path.samefile(source) for source in inputs):
            raise UserError(f"{path}: is an input, which is not overwritten; give another name")
        if path.exists() and TAG not in read_tags(path):
            raise UserError(f"{path}: was not made by difftalk_pl; remove it or give another name")
    except (MediaError, OSError) as error:
        raise UserError(f"{path}: cannot be written ({error}); give another name") from error


def _audio_frames(audio: np.ndarray | Iterator[np.ndarray] | None, fps: Fraction, rate: int) -> Iterator[av.AudioFrame]:
    """Yield the samples that belong to each video frame; silence after the end."""
    pieces, rest = iter([audio]) if isinstance(audio, np.ndarray) else audio or iter(()), np.zeros(0, np.int16)
    for k in count():
        first, last = round(k / fps * rate), round((k + 1) / fps * rate)
        while len(rest) < last - first and (piece := next(pieces, None)) is not None:
            rest = np.concatenate([rest, piece])
        part, rest = fit_audio(rest, last - first), rest[last - first :]
        frame = av.AudioFrame.from_ndarray(part[None].astype(np.int16, copy=False), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
        yield frame
