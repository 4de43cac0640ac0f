"""Published weight files, fetched from a server on this machine, never from the internet."""

import hashlib
import http.server
import os
import pickle
import threading
from functools import partial

import pytest
import torch

from difftalk_pl.__main__ import main
from difftalk_pl.errors import UserError
from difftalk_pl.models import pretrained
from difftalk_pl.models.pretrained import MissingWeights, find_backbone, read_tensors

CONTENT = os.urandom(300_000)
NAME = f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        """Not on the terminal."""


@pytest.fixture
def server(tmp_path):
    """Address of a server of the folder `served`."""
    (tmp_path / "served").mkdir()
    handler = partial(Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Torch's folder of downloads, empty, and `alex` as a file that the server knows."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setitem(pretrained.BACKBONES, "alex", NAME)
    return tmp_path / "torch" / "hub" / "checkpoints"


def test_a_good_file_is_fetched_once_and_a_damaged_one_anew(hub, server, tmp_path, monkeypatch):
    (tmp_path / "served" / NAME).write_bytes(CONTENT)
    monkeypatch.setattr(pretrained, "SOURCE", server)
    assert main(["fetch-weights", "alex"]) == 0
    assert (hub / NAME).read_bytes() == CONTENT
    (tmp_path / "served" / NAME).unlink()
    assert main(["fetch-weights", "alex"]) == 0, "it is there"
    (hub / NAME).write_bytes(CONTENT[:100])
    assert main(["fetch-weights", "alex"]) == 1
    (tmp_path / "served" / NAME).write_bytes(CONTENT)
    assert main(["fetch-weights", "alex"]) == 0 and (hub / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize(("served", "reason"), [(CONTENT[::-1], "invalid hash"), (None, "404")])
def test_a_wrong_or_missing_download_is_not_kept(hub, server, tmp_path, monkeypatch, capsys, served, reason):
    if served is not None:
        (tmp_path / "served" / NAME).write_bytes(served)
    monkeypatch.setattr(pretrained, "SOURCE", server)
    assert main(["fetch-weights", "alex"]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{server}/{NAME}: " in line and reason in line and "run it again" in line
    assert not list(hub.iterdir())


def test_syncnet_is_checked_by_the_table(hub, server, tmp_path, monkeypatch):
    (tmp_path / "served" / "syncnet_v2.model").write_bytes(CONTENT)
    for sha256, code in (("0" * 64, 1), (hashlib.sha256(CONTENT).hexdigest(), 0)):
        monkeypatch.setattr(pretrained, "SYNCNET", pretrained.SYNCNET._replace(source=server, sha256=sha256))
        assert main(["fetch-weights", "syncnet"]) == code


def test_a_missing_or_changed_file_is_named_with_the_remedy(hub, tmp_path):
    with pytest.raises(MissingWeights) as missing:
        find_backbone("vgg", None, "perceptual.weights")
    for part in (str(hub / "vgg16-397923af.pth"), "perceptual.weights", "python -m difftalk_pl fetch-weights vgg"):
        assert part in str(missing.value)
    changed = tmp_path / "elsewhere-0123abcd.pth"
    changed.write_bytes(b"other")
    with pytest.raises(UserError, match=r"elsewhere-0123abcd\.pth: its SHA-256 is .*, not 0123abcd"):
        find_backbone("alex", changed, "x")


class Harmful:
    """Would create a file if it were unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_other_files_are_refused_and_never_unpickled(tmp_path):
    (tmp_path / "text.pth").write_text("<html>not found</html>")
    (tmp_path / "harmful.pth").write_bytes(pickle.dumps(Harmful(tmp_path / "owned"), protocol=2))
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    for name in ("text", "harmful", "module", "list"):
        with pytest.raises(UserError, match=rf"{name}\.pth: no (readable weight file|state dict)"):
            read_tensors(tmp_path / f"{name}.pth")
    assert not (tmp_path / "owned").exists()
