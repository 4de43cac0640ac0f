"""Written files: pictures that come back as they went in, audio that lies where it was, and colours by their tags."""

import av
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from difftalk_pl.errors import UserError
from difftalk_pl.media.audio import audio_pieces, read_audio
from difftalk_pl.media.colour import ToLuma, ToRGB
from difftalk_pl.media.files import MediaError, WriteError
from difftalk_pl.media.video import read_frames
from difftalk_pl.media.writer import TAG, read_tags, refuse_target, write_video
from tests.media.files import chirp, lag, make, numbered


@pytest.mark.parametrize(
    "matrix, full, kr, kb", [(2, False, 0.299, 0.114), (1, False, 0.2126, 0.0722), (6, True, 0.299, 0.114)]
)
def test_colours_follow_the_tags_of_the_file_and_pixels_become_square(tmp_path, matrix, full, kr, kb):
    """Known YUV in, the standard's formula beside what is read. Untagged (2) is BT.601."""
    y, u, v = 120, 100, 160
    with av.open(str(tmp_path / "v.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        stream.codec_context.sample_aspect_ratio = 2
        planes = [np.full((64, 64), y, np.uint8), np.full((16, 64), u, np.uint8), np.full((16, 64), v, np.uint8)]
        frame = av.VideoFrame.from_ndarray(np.concatenate(planes), format="yuv420p")
        frame.colorspace, frame.color_range = matrix, 2 if full else 1
        out.mux([*stream.encode(frame), *stream.encode(None)])
    luma = y / 255 if full else (y - 16) / 219
    cb, cr = ((u - 128) / 255, (v - 128) / 255) if full else ((u - 128) / 224, (v - 128) / 224)
    red, blue = luma + 2 * (1 - kr) * cr, luma + 2 * (1 - kb) * cb
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    (rgb,), (gray,) = (list(read_frames(tmp_path / "v.mp4", convert=convert)) for convert in (ToRGB, ToLuma))
    np.testing.assert_allclose(rgb[32, 32], 255 * np.array([red, green, blue]), atol=1.5)
    assert gray[32, 32] == y and gray.shape == rgb.shape[:2] == (64, 128)


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


@pytest.mark.parametrize("seconds, rate", [(1.0, 16000), (4.0, 44100)])
def test_written_audio_lies_where_it_was(tmp_path, seconds, rate):
    """Too short and too long for 2 s of frames; as an array and in pieces of a file, to the same packets."""
    frames = [numbered(i) for i in range(50)]
    file = make(tmp_path / "a.mp4", [0, 0.04], audio=chirp(seconds, rate), hz=rate)
    sound = read_audio(file, rate)
    write_video(tmp_path / "whole.mp4", frames, audio=sound, rate=rate)
    write_video(tmp_path / "pieces.mp4", frames, audio=audio_pieces(file, rate), rate=rate)
    back = read_audio(tmp_path / "whole.mp4", rate)
    assert np.array_equal(back, read_audio(tmp_path / "pieces.mp4", rate))
    assert 0 <= len(back) - 2 * rate <= 1024
    heard = int(min(seconds, 2.0) * rate)
    assert abs(lag(chirp(seconds, rate)[:heard], back[:heard])) <= 0.005 * rate


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "v.mp4"
    assert write_video(path, [numbered(1)] * 5, tags={"made_by": "test"}) == 5
    before = path.read_bytes()
    assert read_tags(path)["made_by"] == "test"
    assert before.index(b"moov") < before.index(b"mdat")  # starts to play before it is loaded

    def broken():
        yield from (numbered(i) for i in range(20))
        raise RuntimeError("camera fell down")

    with pytest.raises(RuntimeError, match="fell down"):
        write_video(path, broken())
    with pytest.raises(MediaError, match="no frames"):
        write_video(path, iter(()))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    with pytest.raises(WriteError, match=r"v\.mp4: cannot be written: No such file"):
        write_video(tmp_path / "nowhere" / "v.mp4", [numbered(1)])


def test_files_of_others_are_not_overwritten(tmp_path):
    own, plain, foreign, source = (tmp_path / f"{name}.mp4" for name in ("own", "plain", "foreign", "source"))
    write_video(plain, [numbered(1)])
    write_video(own, [numbered(1)], tags={TAG: "{}"})
    write_video(source, [numbered(1)], tags={TAG: "{}"})
    foreign.write_text("mine")
    refuse_target(own, [source])
    refuse_target(tmp_path / "new" / "folder" / "v.mp4", [source])
    assert (tmp_path / "new" / "folder").is_dir()
    for path, message in [
        (foreign, "cannot be written .*not a media file"),
        (plain, "was not made by difftalk_pl"),
        (source, "is an input"),
        (tmp_path, "cannot be written"),
        (own / "v.mp4", "cannot be written"),
    ]:
        with pytest.raises(UserError, match=message):
            refuse_target(path, [source])
