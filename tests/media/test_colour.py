"""Colours against the formula of the standards, and pictures that come back from a file as they went in."""

import av
import numpy as np
import pytest
import skimage.data
from scipy.ndimage import gaussian_filter

from difftalk_pl.media.colour import ToLuma
from difftalk_pl.media.video import read_frames, write_video


@pytest.mark.parametrize(
    "matrix, full, kr, kb",
    [(2, False, 0.299, 0.114), (1, False, 0.2126, 0.0722), (6, True, 0.299, 0.114), (1, True, 0.2126, 0.0722)],
)
def test_colours_follow_the_tags_of_the_file(tmp_path, matrix, full, kr, kb):
    """Known YUV in, the standard's formula beside what is read. Untagged (2) is BT.601."""
    y, u, v = 120, 100, 160
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        planes = [np.full((64, 64), y, np.uint8), np.full((16, 64), u, np.uint8), np.full((16, 64), v, np.uint8)]
        frame = av.VideoFrame.from_ndarray(np.concatenate(planes), format="yuv420p")
        frame.colorspace, frame.color_range = matrix, 2 if full else 1
        out.mux([*stream.encode(frame), *stream.encode(None)])
    luma = y / 255 if full else (y - 16) / 219
    cb, cr = ((u - 128) / 255, (v - 128) / 255) if full else ((u - 128) / 224, (v - 128) / 224)
    red, blue = luma + 2 * (1 - kr) * cr, luma + 2 * (1 - kb) * cb
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    np.testing.assert_allclose(next(read_frames(path))[32, 32], 255 * np.array([red, green, blue]), atol=1.5)


@pytest.mark.parametrize("height", [256, 720])
def test_written_pictures_come_back_unshifted(tmp_path, height):
    """Clouds of colour, changing over some pixels: a wrong matrix or range shifts them, chroma at the wrong place
    gives 35 dB."""
    rng = np.random.default_rng(0)
    clouds = np.stack([gaussian_filter(rng.standard_normal((height, 256)), 3) for _ in range(3)], axis=-1)
    image = np.clip(128 + 40 * clouds / clouds.std(), 0, 255).astype(np.uint8)
    write_video(tmp_path / "v.mp4", [image] * 3, crf=1, intra=True)
    for frame in read_frames(tmp_path / "v.mp4"):
        error = frame.astype(float) - image
        assert np.abs(error.mean(axis=(0, 1))).max() < 0.5
        assert 10 * np.log10(255**2 / (error**2).mean()) > 42


def test_odd_sides_are_padded_by_their_edge(tmp_path):
    image = skimage.data.astronaut()[:101, :75]
    write_video(tmp_path / "v.mp4", [image] * 2, crf=1)
    frame = next(read_frames(tmp_path / "v.mp4"))
    assert frame.shape == (102, 76, 3)
    assert np.abs(frame[101, :75].astype(float) - image[100]).mean() < 12


@pytest.mark.parametrize(
    "pixels, same", [("yuv420p", True), ("yuv444p", True), ("yuv420p10le", False), ("bgr0", False)]
)
def test_brightness_comes_as_the_file_holds_it(tmp_path, pixels, same):
    """The Y plane itself for 8 bit YUV, and its like for all else."""
    image = skimage.data.astronaut()[:102, :134]
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 134, 102, pixels
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels)
        out.mux([*stream.encode(frame), *stream.encode(None)])
    (luma,) = read_frames(path, convert=ToLuma)
    assert luma.shape == (102, 134) and luma.dtype == np.uint8 and luma.flags.c_contiguous
    if same:
        np.testing.assert_array_equal(luma, np.frombuffer(frame.planes[0], np.uint8).reshape(102, -1)[:, :134])
    grey = image @ [0.299, 0.587, 0.114]
    assert np.corrcoef(luma.ravel(), grey.ravel())[0, 1] > 0.999


def test_brightness_is_of_square_pixels(tmp_path):
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 2
        frame = av.VideoFrame.from_ndarray(skimage.data.astronaut()[:64, :64], format="rgb24")
        out.mux([*stream.encode(frame), *stream.encode(None)])
    (luma,) = read_frames(path, convert=ToLuma)
    assert luma.shape == next(read_frames(path)).shape[:2] == (64, 128)
