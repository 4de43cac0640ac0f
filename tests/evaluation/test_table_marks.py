"""Which means of a table compete: those over the same clips."""

from tests.tables import method, rows, shown, write

CLIPS = ("a", "b", "c", "d")


def noted(text):
    return [line for line in text.splitlines() if line.startswith("not marked")]


def test_who_failed_on_the_hardest_clip_does_not_win(tmp_path, capsys):
    lucky = method({"psnr": {"d": "no face"}, "ssim": {"d": "no face"}}, CLIPS, psnr=35.0, ssim=0.99, lmd=1.0)
    methods = {"lucky": lucky, "good": method(clips=CLIPS, psnr=31.0, ssim=0.9, lmd=2.0)}
    methods["fair"] = method(clips=CLIPS, psnr=30.0, ssim=0.8, lmd=3.0)
    text = shown(capsys, write(tmp_path / "run", methods))
    found = rows(text)
    assert [found[name][0] for name in methods] == ["35.00", "**31.00**", "<u>30.00</u>"]
    assert [found[name][2] for name in methods] == ["**1.00**", "<u>2.00</u>", "3.00"], "over all clips"
    assert noted(text) == ["not marked: psnr, ssim of lucky covers 3 of 4 clips"]


def test_of_two_runs_with_the_same_clips_the_one_that_failed_is_not_marked(tmp_path, capsys):
    lucky = write(tmp_path / "lucky", {"model": method({"psnr": {"d": "cut off"}}, CLIPS, psnr=35.0)})
    whole = write(tmp_path / "whole", {"model": method(clips=CLIPS, psnr=30.0)})
    text = shown(capsys, lucky, whole)
    assert rows(text)["lucky: model"][0] == "35.00" and rows(text)["whole: model"][0] == "30.00"
    assert noted(text) == ["not marked: psnr of lucky: model covers 3 of 4 clips"]


def test_an_infinite_psnr_that_a_mean_leaves_out_is_such_a_case(tmp_path, capsys):
    exact = method(clips=CLIPS, psnr=20.0)
    exact["per_clip"]["a"]["psnr"], exact["undefined"]["psnr"] = None, 1
    methods = {"exact": exact, "one": method(clips=CLIPS, psnr=31.0), "two": method(clips=CLIPS, psnr=30.0)}
    text = shown(capsys, write(tmp_path / "run", methods))
    assert [rows(text)[name][0] for name in methods] == ["20.00", "**31.00**", "<u>30.00</u>"]
    assert noted(text) == ["not marked: psnr of exact covers 3 of 4 clips"]


def test_what_all_rows_leave_out_parts_none_of_them(tmp_path, capsys):
    noisy = {"silent_motion": {"a": "noise"}}
    methods = {name: method(noisy, CLIPS, silent_motion=value) for name, value in (("one", 1.0), ("two", 2.0))}
    text = shown(capsys, write(tmp_path / "run", methods))
    assert rows(text)["one"][0] == "**1.0000**" and rows(text)["two"][0] == "<u>2.0000</u>" and not noted(text)


def test_nobody_wins_over_other_clips_of_the_same_number(tmp_path, capsys):
    methods = {
        "one": method({"psnr": {"a": "cut off"}}, CLIPS, psnr=31.0),
        "two": method({"psnr": {"b": "cut off"}}, CLIPS, psnr=30.0),
    }
    text = shown(capsys, write(tmp_path / "run", methods))
    assert rows(text)["one"][0] == "31.00" and rows(text)["two"][0] == "30.00"
    assert noted(text) == [
        "not marked: psnr of one, two covers 3 of 4 clips, not the same ones or frames as other rows"
    ]


def test_bounds_and_columns_that_are_not_shown_are_not_noted(tmp_path, capsys):
    short = method({"psnr": {"a": "cut off"}}, CLIPS, psnr=40.0, ssim=0.9)
    methods = {"codec": short, "model": short, "other": method(clips=CLIPS, psnr=30.0, ssim=0.8)}
    run = write(tmp_path / "run", methods)
    assert not noted(shown(capsys, run, metrics="ssim"))
    assert noted(shown(capsys, run)) == ["not marked: psnr of model covers 3 of 4 clips"]


def test_a_mean_over_fewer_frames_of_the_same_clips_does_not_win(tmp_path, capsys):
    short, whole = method(clips=CLIPS, psnr=35.0), method(clips=CLIPS, psnr=30.0)
    for found, frames in ((short, 10), (whole, 250)):
        for clip in found["per_clip"].values():
            clip["frames"] = frames
    text = shown(capsys, write(tmp_path / "short", {"model": short}), write(tmp_path / "whole", {"model": whole}))
    assert rows(text)["short: model"][0] == "35.00", "not marked"
    assert noted(text) == [
        "not marked: psnr of short: model covers 4 of 4 clips, not the same ones or frames as other rows"
    ]
