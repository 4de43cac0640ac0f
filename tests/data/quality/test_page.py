"""The page of a dataset's report: what is in it, and that it needs nothing but itself."""

import json
import re
import shutil
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from difftalk_pl.data.clips import ClipRow, open_clips, read_rows, write_rows
from difftalk_pl.data.quality.measures import MEASURES, Quality
from difftalk_pl.data.quality.page import COLUMNS, histograms, write_page, write_report
from difftalk_pl.data.quality.table import read_quality


@pytest.fixture(scope="module")
def reported(prepared, tmp_path_factory):
    """A dataset with a refused clip and a damaged one."""
    root = shutil.copytree(prepared, tmp_path_factory.mktemp("report") / "data")
    rows = read_rows(root)
    rows["bad <&>"] = ClipRow("bad <&>", "x", 0, "bad.mp4", "refused", "no face found </script><b>")
    write_rows(root, rows.values())
    (root / "clips" / "synthetic_001" / "audio.wav").write_bytes(b"")
    assert write_report(root, workers=2) == root / "report" / "index.html"
    return root


def page(root):
    return (root / "report" / "index.html").read_text(encoding="utf-8")


def data(root):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page(root), re.S)
    return json.loads(found[1])


def test_every_clip_has_a_row_with_what_is_in_the_tables(reported):
    content = data(reported)
    assert content["columns"] == list(COLUMNS) and len(content["titles"]) == len(COLUMNS)
    rows = {row[0]: dict(zip(COLUMNS, row)) for row in content["rows"]}
    assert set(rows) == set(read_rows(reported))
    assert rows["bad <&>"]["status"] == "refused" and rows["bad <&>"]["reason"] == "no face found </script><b>"
    assert rows["synthetic_001"]["status"] == "damaged" and "audio.wav" in rows["synthetic_001"]["reason"]
    for name, quality in read_quality(reported).items():
        assert [rows[name][key] for key in MEASURES if key != "seconds"] == [
            getattr(quality, key) for key in MEASURES if key != "seconds"
        ]


def test_the_page_loads_nothing_from_elsewhere(reported):
    text = page(reported)
    assert not re.search(r'(src|href)\s*=\s*"(?!#)', re.sub(r"<svg.*?</svg>", "", text, flags=re.S))
    assert not re.search(r"@import|url\((?!#)", text)
    assert 'loading: "lazy"' in text


def test_the_page_is_well_formed(reported):
    """Tags are closed in their order, and the plots are an SVG with a panel for every column that is known."""
    open_tags: list[str] = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "input", "br"):
                open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    checker = Checker()
    checker.feed(re.sub(r"<svg.*?</svg>", "", page(reported), flags=re.S))
    checker.close()
    assert not open_tags
    svg = ElementTree.fromstring(re.search(r"<svg.*</svg>", page(reported), re.S)[0])
    titles = {"".join(element.itertext()).strip() for element in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {"face_size", "yaw", "sharpness", "level", "speech"} <= titles and "sync_offset" not in titles


def test_histograms_count_every_clip_once():
    rows = [Quality(str(k), yaw=float(k % 7)) for k in range(60)]
    svg = ElementTree.fromstring(histograms(rows))
    assert svg.tag.endswith("svg") and histograms(rows) == histograms(rows)
    assert histograms([Quality("a")]) == "<p>Nothing is measured.</p>"


def test_pictures_show_the_clip(reported):
    for clip in open_clips(reported):
        sheet, thumb = (Image.open(reported / "report" / part / f"{clip.name}.jpg") for part in ("", "thumbs"))
        assert sheet.size == (1024, 768) and thumb.size == (96, 96)
        reader = clip.reader()
        true = np.asarray(Image.fromarray(reader[clip.frames // 2]).resize((96, 96)), float)
        reader.close()
        assert np.abs(np.asarray(thumb, float) - true).mean() < 12
    green = (np.asarray(sheet, int) @ (-1, 2, -1) > 200).sum()
    assert green > 12 * 68, "landmarks are drawn"


def test_a_page_of_many_clips_is_written_at_once(prepared, tmp_path):
    """Rows are data of some 200 bytes, no elements of the page."""
    names = [f"clip_{k:05d}" for k in range(5000)]
    write_rows(tmp_path, [ClipRow(name, name, 100, "a.mp4", "ok") for name in names])
    write_page(tmp_path, {name: Quality(name, seconds=4, yaw=float(k % 40)) for k, name in enumerate(names)})
    assert len(data(tmp_path)["rows"]) == 5000
    assert (tmp_path / "report" / "index.html").stat().st_size < 2_000_000 and page(tmp_path).count("<tr") < 50
