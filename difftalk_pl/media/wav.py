"""The sound of prepared clips: mono WAV files of 16 bit."""

import wave
from pathlib import Path

import numpy as np

from difftalk_pl.errors import UserError


def write_wav(path: Path, samples: np.ndarray, rate: int) -> None:
    """Write (N,) int16 as a mono WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.ascontiguousarray(samples, dtype="<i2").tobytes())


def read_wav(path: Path, samples: int, rate: int, part: slice = slice(None)) -> np.ndarray:
    """A part of a file of so many samples, int16; nothing else of it is read.

    Raises:
        UserError: it is cut short, damaged, or of another kind or length.
    """
    start, stop, _ = part.indices(samples)
    try:
        with wave.open(str(path)) as file:
            kind = file.getnchannels(), file.getsampwidth(), file.getframerate(), file.getnframes()
            file.setpos(min(start, kind[3]))
            content = file.readframes(stop - start)
    except (wave.Error, EOFError) as error:
        what = error or "it ends too early"
        raise UserError(f"{path}: no readable WAV file ({what}); prepare its clip again") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; prepare its clip again") from error
    if kind != (1, 2, rate, samples) or len(content) != 2 * (stop - start):
        found = f"{kind[0]} channels of {8 * kind[1]} bit at {kind[2]} Hz, {kind[3]} samples by its head"
        wanted = f"1 channel of 16 bit at {rate} Hz with {samples} samples, all of them there"
        raise UserError(f"{path}: {found}; expected {wanted}; prepare its clip again")
    return np.frombuffer(content, dtype="<i2")
