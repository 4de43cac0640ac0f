"""Picture and sound that came as two files as one, not encoded anew; no ffmpeg program is needed."""

import heapq
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream

from difftalk_pl.media.containers import MediaError, audio_stream, media_errors, open_media, video_stream

CONTAINERS = (".mp4", ".mkv")  # mp4 keeps times exactly; Matroska takes what mp4 does not and rounds to milliseconds


def join(picture: Path, sound: Path, target: Path) -> Path:
    """Write the picture of one file and the sound of another, which may be the same, with their own times.

    Args:
        target: without suffix; of the containers that take both, the first one's is added.

    Raises:
        MediaError: a file is damaged, or no container takes its tracks.
    """
    reasons = []
    for suffix in CONTAINERS:
        path = target.with_name(target.name + suffix)
        try:
            _write(picture, sound, path)
            return path
        except (MediaError, ValueError) as error:  # ValueError: PyAV, of a codec that a container cannot hold
            path.unlink(missing_ok=True)
            reasons.append(str(error))
    raise MediaError(f"{picture} and {sound}: cannot be put together: {reasons[-1]}")


def _write(picture: Path, sound: Path, path: Path) -> None:
    with ExitStack() as stack:
        first, second = (stack.enter_context(open_media(one)) for one in (picture, sound))
        with media_errors(path, "cannot be written"), av.open(path, "w") as output:
            tracks = [
                _packets(first, video_stream(first, picture), output),
                _packets(second, audio_stream(second, sound), output),
            ]
            for _, _, packet in heapq.merge(*tracks, key=lambda item: item[:2]):
                output.mux(packet)


def _packets(container: InputContainer, stream: Stream, output: OutputContainer) -> Iterator[tuple[float, int, Packet]]:
    """With the time by which they are interleaved; those of one stream keep their order."""
    track = output.add_stream_from_template(stream)  # type: ignore[type-var]
    return _timed(container, stream, track)


def _timed(container: InputContainer, stream: Stream, track: Stream) -> Iterator[tuple[float, int, Packet]]:
    for packet in container.demux(stream):
        if packet.dts is not None and packet.time_base is not None:
            time = float(packet.dts * packet.time_base)
            packet.stream = track
            yield time, track.index, packet
