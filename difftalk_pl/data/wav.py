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


def read_wav(path: Path, samples: int, rate: int) -> np.ndarray:
    """(samples,) int16. Raises UserError for a file that is cut short, damaged, or of another kind or length."""
    try:
        with wave.open(str(path)) as file:
            kind = file.getnchannels(), file.getsampwidth(), file.getframerate()
            content = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise UserError(
            f"{path}: no readable WAV file ({error or 'it ends too early'}); prepare its clip again"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; prepare its clip again") from error
    if kind != (1, 2, rate) or len(content) != 2 * samples:
        found = f"{kind[0]} channels of {8 * kind[1]} bit at {kind[2]} Hz, {len(content)} bytes"
        raise UserError(
            f"{path}: {found}; expected 1 of 16 bit at {rate} Hz, {2 * samples} bytes; prepare its clip again"
        )
    return np.frombuffer(content, dtype="<i2")
