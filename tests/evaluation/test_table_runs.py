"""Files that are no results.json, or hardly: one line says what is wrong with them."""

import copy
import json

import pytest

from difftalk_pl.__main__ import main
from tests.tables import method

GOOD = {"format": 2, "methods": {"model": method(psnr=30.0, failed={"psnr": {"a": "x"}})}, "protocol": {"fps": 25}}


def changed(path, value):
    """GOOD with one value in the place that a dotted path names."""
    content = copy.deepcopy(GOOD)
    *folders, last = path.split(".")
    place = content
    for folder in folders:
        place = place[folder]
    place[last] = value
    return content


ODD = {
    "methods": ([], "methods is [], expected an object"),
    "methods.model": ("good", 'methods.model is "good", expected an object'),
    "methods.model.interval": (None, "methods.model.interval is null, expected an object"),
    "methods.model.interval.psnr": ([1.0], "methods.model.interval.psnr is [1.0], expected 2 numbers or null"),
    "methods.model.overall.psnr": ("abc", 'overall.psnr is "abc", expected a number or null'),
    "methods.model.overall": (None, "methods.model.overall is null, expected an object"),
    "methods.model.per_clip.a": (30.0, "methods.model.per_clip.a is 30.0, expected an object"),
    "methods.model.per_clip.a.psnr": ([], "methods.model.per_clip.a.psnr is [], expected a number or null"),
    "methods.model.failed.psnr": (["a"], 'methods.model.failed.psnr is ["a"], expected an object'),
    "methods.model.failed.psnr.a": (1, "methods.model.failed.psnr.a is 1, expected a text"),
    "methods.model.undefined.psnr": ("1", 'methods.model.undefined.psnr is "1", expected a whole number'),
    "format": ("x", 'format is "x", expected a whole number'),
    "protocol": ([], "protocol is [], expected an object"),
}


@pytest.mark.parametrize("path", ODD)
def test_what_has_another_shape_is_said_in_one_line(path, tmp_path, capsys):
    value, message = ODD[path]
    file = tmp_path / "odd.json"
    file.write_text(json.dumps(changed(path, value)))
    assert main(["table", str(file)]) == 1
    error = capsys.readouterr().err
    assert f"{file}: is not a results.json of this project: " in error and message in error and error.count("\n") == 1


@pytest.mark.parametrize("text", ["[]", "null", "3", "{}"])
def test_other_json_is_said_in_one_line(text, tmp_path, capsys):
    (tmp_path / "odd.json").write_text(text)
    assert main(["table", str(tmp_path / "odd.json")]) == 1
    assert "is not a results.json of this project" in capsys.readouterr().err


def test_the_good_one_is_shown(tmp_path, capsys):
    (tmp_path / "good.json").write_text(json.dumps(GOOD))
    assert main(["table", str(tmp_path / "good.json"), "--intervals"]) == 0
    assert "30.00 [29.00, 31.00]" in capsys.readouterr().out
