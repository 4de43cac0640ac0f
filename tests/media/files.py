"""Media files at timestamps of a test's choosing, made with PyAV alone; frames show their numbers in binary."""

import struct
from fractions import Fraction

import av
import numpy as np

BITS, BLOCK = 10, 16
HEIGHT, WIDTH = 48, BITS * BLOCK
TICKS = 90_000


def numbered(number: int) -> np.ndarray:
    """Draw a number in binary, (48, 160, 3) uint8."""
    bits = [255 * (number >> bit & 1) for bit in range(BITS)]
    return np.broadcast_to(np.repeat(np.array(bits, np.uint8), BLOCK)[None, :, None], (HEIGHT, WIDTH, 3)).copy()


def number_of(frame: np.ndarray) -> int:
    """Read the number of a frame that `numbered` drew."""
    return sum(int(value > 127) << bit for bit, value in enumerate(frame[HEIGHT // 2, BLOCK // 2 :: BLOCK, 1]))


def make(
    path, times, *, rate=25, images=None, audio=None, hz=16000, late=0.0, codec="libx264", options=None, muxer=None
):
    """Write a video whose frame i is due at times[i] s; the last one stays for 1 / rate.

    audio: (N,) int16 at `hz`, which begins `late` s after zero.
    """
    images = images if images is not None else [numbered(i) for i in range(len(times))]
    with av.open(str(path), "w", options=muxer or {}) as out:
        video = out.add_stream(codec, rate=rate, options=options or {"crf": "12", "g": "50", "bf": "3"})
        video.height, video.width, video.pix_fmt = *images[0].shape[:2], "yuv420p"
        if codec == "libx264":
            video.time_base = video.codec_context.time_base = Fraction(1, TICKS)
        base = video.codec_context.time_base or Fraction(1, rate)
        track = None if audio is None else out.add_stream("aac", rate=hz, layout="mono")
        for time, image in zip(times, images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time / base), base
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if track is not None:
            out.mux([*track.encode(audio_frame(audio, hz, late)), *track.encode(None)])
    return path


def audio_frame(samples, rate, start):
    """Make a frame of (N,) int16 that begins at `start` s."""
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), round(start * rate)
    return frame


def turned(path):
    """Ask players for a quarter turn clockwise, as phones do, by the matrix in the header of the track."""
    content = bytearray(path.read_bytes())
    header = content.index(b"tkhd") + 4
    matrix = content.index(struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30), header)
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def chirp(seconds, rate=16000):
    """Make a sweep with bursts, which aligns as well as speech."""
    t = np.arange(int(seconds * rate)) / rate
    tone, bursts = np.sin(2 * np.pi * (200 * t + 150 * t**2)), np.sin(2 * np.pi * 3 * t) > 0
    return (8000 * tone * (0.2 + bursts)).astype(np.int16)


def lag(a, b, reach=400):
    """Return the samples by which b comes later than a."""
    n = min(len(a), len(b)) - 2 * reach
    a, b = a.astype(float), b.astype(float)
    scores = [a[reach : reach + n] @ b[reach + s : reach + s + n] for s in range(-reach, reach + 1)]
    return int(np.argmax(scores)) - reach
