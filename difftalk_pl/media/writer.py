"""Video files: H.264 and AAC in an mp4 that appears whole or not at all, with tags that say how it was made."""

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain, count
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from difftalk_pl.errors import UserError
from difftalk_pl.media.audio import fit_audio
from difftalk_pl.media.colour import tag_colours, to_yuv
from difftalk_pl.media.files import MediaError, WriteError, open_media

TAG = "difftalk_pl"  # how a video was made, as JSON
JOB = "difftalk_pl_job"  # names the job that made it
# Key frames only. Beside `medium`, crf 5 on real clips: a quarter of the time to write, half of it to read, as CAVLC
# is simpler than CABAC.
INTRA = {"preset": "superfast", "tune": "psnr", "coder": "cavlc", "g": "1", "bf": "0"}
# swscale puts halved chroma in the middle of its pixels; a file that does not say so is read with chroma at the left
# edge, which costs up to 8 dB.
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
    """Write an mp4 that plays everywhere: yuv420p, limited range, with the matrix written into the file.

    Args:
        frames: (H, W, 3) uint8 RGB, all of one size; an odd side is padded by one row or column of its edge.
        audio: (N,) int16 mono, or pieces of it; cut or padded to end with the last frame.
        crf: x264's quality, lower is better; 18 looks lossless.
        intra: every frame a key frame, so that `FrameReader` reaches any of them at once.
        tags: metadata of any key, e.g. how the file was made.

    Returns:
        the number of frames written

    Raises:
        MediaError: there are no frames.
        WriteError: the disk or the encoder fails.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with av.open(temporary, "w", format="mp4", options={"movflags": "use_metadata_tags+faststart"}) as container:
            container.metadata.update(tags or {})
            exact, options = Fraction(fps).limit_denominator(100_000), INTRA if intra else {"preset": "medium"}
            written = _encode(container, iter(frames), exact, audio, rate, {"crf": str(crf), **options, **CHROMA})
        if written == 0:
            raise MediaError(f"{target}: no frames to write")
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
    refuse_place(path, inputs)
    try:
        is_foreign = path.exists() and TAG not in read_tags(path)
    except MediaError:
        is_foreign = True
    if is_foreign:
        raise UserError(f"{path}: exists already and was not made by difftalk_pl; remove it or give another name")


def refuse_place(path: Path, inputs: Iterable[Path]) -> None:
    """Check as `refuse_target` does, whatever file exists already."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: its folder cannot be made: {error.strerror}") from error
    if path.exists() and any(source.exists() and path.samefile(source) for source in inputs):
        raise UserError(f"{path}: is an input, which is not overwritten; give another name")


def _encode(
    container: OutputContainer,
    frames: Iterator[np.ndarray],
    fps: Fraction,
    audio: np.ndarray | Iterator[np.ndarray] | None,
    rate: int,
    options: dict[str, str],
) -> int:
    """Encode frames and audio side by side, so that the muxer never has to hold one back for the other."""
    first = next(frames, None)
    if first is None:
        return 0
    video, reformatter, heard = _video_output(container, first, fps, options), VideoReformatter(), 0
    bits = min(128_000, 4 * rate)
    track = None if audio is None else container.add_stream("aac", rate=rate, layout="mono", bit_rate=bits)
    parts = _per_frame(np.zeros(0, np.int16) if audio is None else audio, fps, rate)
    for number, (image, part) in enumerate(zip(chain([first], frames), parts)):
        frame = to_yuv(image, reformatter)
        frame.pts, frame.time_base = number, 1 / fps
        container.mux(video.encode(frame))
        if track is not None:
            container.mux(track.encode(_audio_frame(part, heard, rate)))
            heard += len(part)
    for stream in container.streams:
        container.mux(stream.encode(None))
    return number + 1


def _per_frame(audio: np.ndarray | Iterator[np.ndarray], fps: Fraction, rate: int) -> Iterator[np.ndarray]:
    """Yield the samples of each frame, (n,) int16; silence after the end."""
    pieces, rest = iter([audio]) if isinstance(audio, np.ndarray) else audio, np.zeros(0, np.int16)
    for k in count():
        n = round((k + 1) / fps * rate) - round(k / fps * rate)
        while len(rest) < n and (piece := next(pieces, None)) is not None:
            rest = np.concatenate([rest, piece])
        yield fit_audio(rest, n)
        rest = rest[n:]


def _video_output(container: OutputContainer, image: np.ndarray, fps: Fraction, options: dict[str, str]) -> VideoStream:
    stream = container.add_stream("libx264", rate=fps, options=options)
    stream.height, stream.width = (side + side % 2 for side in image.shape[:2])
    stream.pix_fmt = "yuv420p"
    stream.codec_context.thread_count = 2  # more only cost memory: every thread holds frames
    tag_colours(stream.codec_context, image.shape[0])
    return stream


def _audio_frame(samples: np.ndarray, start: int, rate: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(samples[None].astype(np.int16, copy=False), format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
    return frame
