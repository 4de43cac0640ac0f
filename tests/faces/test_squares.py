"""Squares straight from the decoder against the long way: the whole frame to RGB, cut, and shrunk by Pillow."""

from functools import partial

import av
import numpy as np
import pytest
import skimage.data
from PIL import Image

from difftalk_pl.faces.crop import Crop, CutSquare, cut_frame
from difftalk_pl.media.video import read_frames
from difftalk_pl.media.writer import write_video

PHOTO = skimage.data.astronaut()[:400, :500]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(((a.astype(float) - b) ** 2).mean(), 1e-9)))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("squares") / "v.mp4"
    write_video(path, [np.roll(PHOTO, 3 * k, axis=1) for k in range(4)], crf=10)
    return path


def both_ways(path, crop: Crop, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    short = list(read_frames(path, convert=partial(CutSquare, crop=crop, size=size)))
    return list(zip(short, (cut_frame(frame, crop, size) for frame in read_frames(path)), strict=True))


@pytest.mark.parametrize("crop", [Crop(60, 20, 360), Crop(0, 0, 128), Crop(100, 44, 90)])
def test_squares_are_those_of_the_whole_frame(video, crop):
    """Shrunk, as they are, and enlarged."""
    for short, long in both_ways(video, crop, 128):
        assert short.shape == (128, 128, 3) and short.dtype == np.uint8 and short.flags.c_contiguous
        assert psnr(short, long) > 41
        assert np.abs(short.astype(float).mean(axis=(0, 1)) - long.mean(axis=(0, 1))).max() < 0.5


def test_the_finest_photograph_is_shrunk_without_a_shift(video):
    """A shift by half a pixel, of brightness or of colour, costs more than 5 dB."""
    ((short, long), *_) = both_ways(video, Crop(60, 20, 256), 256)
    assert psnr(short, long) > 50
    assert psnr(short[:, 1:], long[:, :-1]) < psnr(short, long) - 10


@pytest.mark.parametrize("crop", [Crop(61, 20, 200), Crop(60, 21, 200), Crop(60, 20, 201)])
def test_squares_between_colour_samples_go_the_long_way(video, crop):
    for short, long in both_ways(video, crop, 64):
        np.testing.assert_array_equal(short, long)


@pytest.mark.parametrize("matrix, full", [(1, False), (6, True), (2, False)])
def test_colours_follow_the_tags(tmp_path, matrix, full):
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width = stream.height = 96
        stream.pix_fmt = "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        planes = [np.full((96, 96), 120, np.uint8), np.full((24, 96), 100, np.uint8), np.full((24, 96), 160, np.uint8)]
        frame = av.VideoFrame.from_ndarray(np.concatenate(planes), format="yuv420p")
        frame.colorspace, frame.color_range = matrix, 2 if full else 1
        out.mux([*stream.encode(frame), *stream.encode(None)])
    ((short, long),) = both_ways(path, Crop(8, 8, 80), 64)
    np.testing.assert_allclose(short[32, 32], long[32, 32].astype(int), atol=1)


def test_a_turned_video_is_cut_upright(video, tmp_path):
    turned = tmp_path / "turned.mp4"
    with av.open(str(video)) as source, av.open(str(turned), "w") as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
    content = bytearray(turned.read_bytes())
    place = content.index(b"tkhd") + 4 + 4 + 4 * 4 + 4 + 8 + 8  # the matrix of the track's header, version 0
    matrix = [0, 1 << 16, 0, -(1 << 16), 0, 0, 400 << 16, 0, 1 << 30]  # a quarter turn
    content[place : place + 36] = b"".join(number.to_bytes(4, "big", signed=True) for number in matrix)
    turned.write_bytes(content)
    assert next(read_frames(turned)).shape == (500, 400, 3)
    upright = np.rot90(next(read_frames(video)), -1)
    assert psnr(next(read_frames(turned)), upright) > 60
    for short, long in both_ways(turned, Crop(20, 60, 300), 64):
        np.testing.assert_array_equal(short, long)


def test_resizing_does_not_alias(tmp_path):
    """A fine chequerboard becomes grey, not a coarser pattern."""
    board = np.repeat((np.indices((200, 200)).sum(axis=0) % 2 * 255)[..., None], 3, axis=2).astype(np.uint8)
    write_video(tmp_path / "v.mp4", [board], crf=1)
    for square in both_ways(tmp_path / "v.mp4", Crop(10, 20, 150), 64)[0]:
        assert np.ptp(square[4:-4, 4:-4].astype(int)) < 30


def test_real_frames_lose_nothing(real_clips):
    """Lanczos in swscale and in Pillow: within 0.7 levels RMS."""
    crop = Crop(6, 10, 480)
    for short, long in both_ways(real_clips / "r3d_may.mp4", crop, 256)[::25]:
        assert psnr(short, long) > 51
        small = np.asarray(Image.fromarray(short).reduce(4), float)
        assert np.abs(small - np.asarray(Image.fromarray(long).reduce(4), float)).max() < 6
