"""predict: every clip as a video, in its order, and damaged clips."""

import json

import pytest

from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.judge import Measuring
from difftalk_pl.evaluation.score import score
from difftalk_pl.media.video import probe, read_frames
from tests.callbacks.test_evaluation import clips, people, tested  # noqa: F401


def test_predictions_score_as_test_does_under_the_same_protocol(tested, runner):  # noqa: F811
    two = people("synthetic_001", "synthetic_003")
    ours = tested(**two)
    tested("predict", **two)
    folder, out = runner.folder / "run" / "predictions", runner.folder / "predicted.json"
    assert sorted(path.stem for path in folder.iterdir()) == ["synthetic_001", "synthetic_003"]
    assert all(len(list(read_frames(path))) == 8 and probe(path).has_audio for path in folder.iterdir())
    measuring = Measuring(lpips=None, faces=False)
    score([folder], [runner.data], out, method="predicted", measuring=measuring, frames=8, device="cpu")
    theirs = json.loads(out.read_text())
    assert theirs["protocol_hash"] == ours["protocol_hash"] and theirs["clips"]["frames_left_out"] == {}
    known, found = ours["methods"]["model"]["overall"], theirs["methods"]["predicted"]["overall"]
    for measure, slack in (("psnr", 1.0), ("mouth_psnr", 1.0), ("opening_correlation", 0.1)):
        assert found[measure] == pytest.approx(known[measure], abs=slack)


def test_a_damaged_clip_does_not_end_the_others(tested, runner, clips, caplog):  # noqa: F811
    (clips / "synthetic_001" / "video.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match="1 of 2 clips"):
        tested("predict", **people("synthetic_001", "synthetic_003"))
    assert [path.stem for path in (runner.folder / "run" / "predictions").iterdir()] == ["synthetic_003"]
    (line,) = [record.getMessage() for record in caplog.records if "not written" in record.getMessage()]
    assert "Traceback" not in line and "video.mp4" in line and "\n" not in line
