"""Published weight files, fetched from a server on this machine, never from the internet."""

import hashlib
import http.server
import os
import threading
from functools import partial

import pytest

from difftalk_pl.__main__ import main
from difftalk_pl.errors import UserError
from difftalk_pl.training import pretrained
from difftalk_pl.training.pretrained import MissingWeights, PerceptualDistance

CONTENT = os.urandom(300_000)
NAME = f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


@pytest.fixture
def served(tmp_path, monkeypatch):
    """The folder of a server that stands for the published addresses; torch's folder of downloads is empty."""
    (folder := tmp_path / "served").mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=partial(server.serve_forever, poll_interval=0.01), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setitem(pretrained.BACKBONES, "alex", NAME)
        monkeypatch.setattr(pretrained, "TORCHVISION", address)
        monkeypatch.setattr(pretrained, "SYNCNET", f"{address}syncnet_v2.model")
        yield folder
        server.shutdown()


def test_a_good_file_is_fetched_once_and_a_damaged_one_is_not_kept(served, tmp_path, capsys):
    file = tmp_path / "torch" / "hub" / "checkpoints" / NAME
    for content, code, reason in ((None, 1, "404"), (CONTENT[::-1], 1, "invalid hash"), (CONTENT, 0, "")):
        if content is not None:
            (served / NAME).write_bytes(content)
        assert main(["fetch-weights", "alex"]) == code and file.is_file() == (code == 0)
        assert reason in capsys.readouterr().err.strip().splitlines()[-1]
    (served / NAME).unlink()
    assert main(["fetch-weights", "alex"]) == 0, "it is there"
    file.write_bytes(CONTENT[:100])
    assert main(["fetch-weights", "alex"]) == 1
    (served / "syncnet_v2.model").write_bytes(CONTENT)
    assert main(["fetch-weights", "syncnet"]) == 1, "the hash is in the source"


def test_a_missing_or_changed_file_is_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MissingWeights, match=r"vgg16-397923af\.pth.*fetch-weights vgg`.* by perceptual\.weights"):
        PerceptualDistance("vgg", None, "perceptual.weights")
    changed = tmp_path / "elsewhere-0123abcd.pth"
    changed.write_bytes(b"other")
    with pytest.raises(UserError, match=r"elsewhere-0123abcd\.pth: its SHA-256 is .*, not 0123abcd"):
        PerceptualDistance("alex", changed, "x")
