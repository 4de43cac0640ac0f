"""Audio on the clock of the frames, whole or piece by piece, and the WAV files of prepared clips."""

import struct
from collections.abc import Generator
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.filter import Graph
from scipy.io import wavfile

from difftalk_pl.errors import UserError
from difftalk_pl.media.files import MediaError, check_span, clock_zero, media_errors, open_media, pull

RATE = 16000  # Hz
HOLE = 0.02  # s; a larger jump of the timestamps is lost audio, a smaller one is rounding


def audio_pieces(path: str | Path, rate: int = RATE, start: float = 0.0) -> Generator[np.ndarray, None, None]:
    """Decode the first audio track: sample n of the whole belongs to n / rate s on the clock of `read_frames`.

    ffmpeg's `aresample` puts silence before a track that starts late and where packets are lost, and drops what lies
    before `start`.

    Yields:
        (n,) int16, mixed to mono; each piece begins where the one before it ended.

    Raises:
        MediaError: unreadable, damaged, no audio track, or one without samples.
    """
    graph = None
    with open_media(path) as container, media_errors(path):
        if not container.streams.audio:
            raise MediaError(f"{path}: no audio track")
        for frame in chain(container.decode(container.streams.audio[0]), [None]):
            if frame is not None:
                graph = graph or _resampler(frame, rate, start)
                if frame.pts is not None and frame.time_base is not None:
                    frame.pts -= round(clock_zero(container) / frame.time_base)
            if graph is None:
                raise MediaError(f"{path}: the audio track holds no samples")
            graph.push(frame)
            yield from (piece.to_ndarray()[0] for piece in pull(graph))


def read_audio(path: str | Path, rate: int = RATE, start: float = 0.0, stop: float | None = None) -> np.ndarray:
    """Return the audio from `start` to `stop` s, or to its end, (N,) int16; see `audio_pieces`.

    A span may end up to a second after the audio, and is shorter then.

    Raises:
        MediaError: unreadable, no audio track, or no such span in it.
    """
    wanted, taken = None if stop is None else round(stop * rate) - round(start * rate), [np.zeros(0, np.int16)]
    for piece in audio_pieces(path, rate, start):
        taken.append(piece)
        if wanted is not None and sum(map(len, taken)) >= wanted:
            break
    samples = np.concatenate(taken)[:wanted]
    if start or stop is not None:
        check_span(path, start, stop, start + len(samples) / rate)
    return samples


def fit_audio(samples: np.ndarray, n: int) -> np.ndarray:
    """Cut, or pad with silence, to exactly n samples."""
    return np.pad(samples[:n], (0, max(0, n - len(samples))))


def write_wav(path: Path, samples: np.ndarray, rate: int) -> None:
    """Write (N,) int16 as a mono WAV file."""
    wavfile.write(path, rate, np.ascontiguousarray(samples, np.int16))


def read_wav(path: Path, samples: int, rate: int, part: slice = slice(None)) -> np.ndarray:
    """Read a part of a mono WAV file of so many samples, int16.

    Raises:
        UserError: it is missing, cut short, damaged, or of another kind or length.
    """
    try:
        found, content = wavfile.read(path, mmap=True)
    except (OSError, ValueError, struct.error) as error:
        raise UserError(f"{path}: not a readable WAV file ({error}); remove its folder and prepare again") from error
    if (found, content.dtype, content.shape) != (rate, np.int16, (samples,)):
        given = f"{content.dtype} {content.shape} at {found} Hz"
        raise UserError(
            f"{path}: {given}, expected int16 ({samples},) at {rate} Hz; remove its folder and prepare again"
        )
    return np.array(content[part])


def _resampler(frame: av.AudioFrame, rate: int, start: float) -> Graph:
    """Build ffmpeg's filter for audio of this kind, from `start` s on."""
    graph, layout, base = Graph(), frame.layout.name, frame.time_base
    graph.link_nodes(
        graph.add_abuffer(sample_rate=frame.sample_rate, format=frame.format, layout=layout, time_base=base),
        graph.add("aresample", f"{rate}:min_hard_comp={HOLE}:first_pts={round(start * frame.sample_rate)}"),
        graph.add("aformat", "sample_fmts=s16:channel_layouts=mono"),
        graph.add("abuffersink"),
    ).configure()
    return graph
