"""Published weight files: found, proved and refused; fetched from a server on this machine, never from the internet."""

import hashlib
import http.server
import os
import pickle
import re
import socket
import threading
from contextlib import contextmanager

import pytest
import torch

from difftalk_pl.__main__ import main
from difftalk_pl.errors import UserError
from difftalk_pl.models import pretrained
from difftalk_pl.models.pretrained import (
    MissingWeights,
    check_hash,
    file_hash,
    find_backbone,
    read_lpips_heads,
    read_tensors,
)
from difftalk_pl.training.perceptual import PerceptualDistance
from tests.backbones import write_backbone

CONTENT = os.urandom(300_000)
NAME = f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


class Handler(http.server.BaseHTTPRequestHandler):
    """/good/ is the file, /changed/ another of that size, /cut/ stops half way, all else is 404."""

    def do_GET(self) -> None:
        kind = self.path.split("/")[1]
        if kind not in ("good", "changed", "cut"):
            self.send_error(404)
            return
        self.server.requests.append(self.path)
        body = CONTENT if kind != "changed" else CONTENT[::-1]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if kind != "cut" else body[: len(body) // 2])

    def log_message(self, *_) -> None:
        """Not on the terminal."""


@pytest.fixture
def server():
    """Address and the paths that were asked for."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", server.requests
        server.shutdown()
        thread.join()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty folder of torch's own, and `alex` as a file that the server knows."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setitem(pretrained.BACKBONES, "alex", NAME)
    return tmp_path / "torch" / "hub" / "checkpoints"


def fetch(monkeypatch, capsys, source):
    """Exit code and the last line on standard error."""
    monkeypatch.setattr(pretrained, "SOURCE", source)
    code = main(["fetch-weights", "alex"])
    return code, capsys.readouterr().err.strip().splitlines()[-1]


def test_a_good_file_is_fetched_once(hub, server, monkeypatch, capsys):
    address, requests = server
    assert fetch(monkeypatch, capsys, f"{address}/good")[0] == 0
    assert [path.name for path in hub.iterdir()] == [NAME] and (hub / NAME).read_bytes() == CONTENT
    assert fetch(monkeypatch, capsys, f"{address}/good")[0] == 0
    assert requests == [f"/good/{NAME}"]


def test_a_damaged_file_is_fetched_anew(hub, server, monkeypatch, capsys):
    hub.mkdir(parents=True)
    (hub / NAME).write_bytes(CONTENT[:100])
    assert fetch(monkeypatch, capsys, f"{server[0]}/good")[0] == 0
    assert (hub / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize(("kind", "reason"), [("changed", "invalid hash"), ("cut", "invalid hash"), ("none", "404")])
def test_what_comes_wrong_is_not_kept(hub, server, monkeypatch, capsys, kind, reason):
    code, line = fetch(monkeypatch, capsys, f"{server[0]}/{kind}")
    assert code == 1 and line.startswith(f"difftalk_pl fetch-weights: {server[0]}/{kind}/{NAME}: ")
    assert reason in line and "run it again" in line
    assert not list(hub.iterdir())


def test_without_a_network_one_line_says_so(hub, monkeypatch, capsys):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, and nobody listens
        code, line = fetch(monkeypatch, capsys, f"http://127.0.0.1:{nobody.getsockname()[1]}")
    assert code == 1 and "cannot be fetched" in line and str(hub / NAME) in line


def test_a_server_that_says_nothing_is_given_up(hub, monkeypatch, capsys):
    monkeypatch.setattr(pretrained, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code, line = fetch(monkeypatch, capsys, f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert code == 1 and "timed out" in line
    assert socket.getdefaulttimeout() is None


def test_a_name_without_a_hash_is_proved_by_the_table(hub, server, monkeypatch, capsys):
    address, requests = server
    assert pretrained.SYNCNET.name == "syncnet_v2.model" and len(pretrained.SYNCNET.sha256) == 64
    for kind, sha256, code in (("good", hashlib.sha256(CONTENT).hexdigest(), 0), ("changed", "0" * 64, 1)):
        file = pretrained.SYNCNET._replace(source=f"{address}/{kind}", sha256=sha256)
        monkeypatch.setattr(pretrained, "SYNCNET", file)
        assert main(["fetch-weights", "syncnet"]) == code
    assert "syncnet_v2.model: came incomplete or changed" in capsys.readouterr().err
    assert (hub / "syncnet_v2.model").read_bytes() == CONTENT, "the good one is kept"
    assert requests == ["/good/syncnet_v2.model", "/changed/syncnet_v2.model"]


def test_a_missing_file_names_both_ways(hub, tmp_path):
    with pytest.raises(MissingWeights) as missing:
        find_backbone("vgg", None, "perceptual.weights")
    message = str(missing.value)
    assert str(hub / "vgg16-397923af.pth") in message and "perceptual.weights" in message
    assert "python -m difftalk_pl fetch-weights vgg" in message
    assert "https://download.pytorch.org/models/vgg16-397923af.pth" in message and "\n" not in message
    with pytest.raises(MissingWeights, match=r"mine\.pth: no weights of vgg"):
        find_backbone("vgg", tmp_path / "mine.pth", "perceptual.weights")


@contextmanager
def refused(*words):
    with pytest.raises(UserError) as error:
        yield error
    assert all(word in str(error.value) for word in words), error.value


def test_a_hash_in_the_name_is_always_checked(hub, tmp_path):
    hub.mkdir(parents=True)
    for path in (hub / NAME, tmp_path / "elsewhere-0123abcd.pth"):
        path.write_bytes(b"other")
    actual = hashlib.sha256(b"other").hexdigest()
    with refused(str(hub / NAME), NAME[4:12], actual):
        find_backbone("alex", None, "x")
    with refused("elsewhere-0123abcd.pth", "0123abcd", actual):
        find_backbone("alex", tmp_path / "elsewhere-0123abcd.pth", "x")
    (hub / NAME).write_bytes(CONTENT)
    assert find_backbone("alex", None, "x") == hub / NAME
    check_hash(tmp_path / "without.pth")  # no hash, nothing to check
    assert file_hash(hub / NAME) == hashlib.sha256(CONTENT).hexdigest()


class Harmful:
    """Would write a file if it were unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_files_that_are_no_weights_are_refused_and_never_unpickled(tmp_path):
    """Nor is the advice of torch's own message given, to unpickle them after all."""
    (tmp_path / "random.pth").write_bytes(CONTENT)
    (tmp_path / "text.pth").write_text("<html>not found</html>")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "harmful.pth").write_bytes(pickle.dumps(Harmful(tmp_path / "owned"), protocol=2))
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    whole = write_backbone(tmp_path / "whole.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    for name in ("random", "text", "empty", "harmful", "module", "list", "half"):
        with refused(f"{name}.pth") as error:
            read_tensors(tmp_path / f"{name}.pth")
        assert "\n" not in str(error.value)
        assert not re.search("weights_only|allowlist|re-running|likely", str(error.value), re.IGNORECASE)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "entry",
    [
        {3: torch.zeros(2)},
        {("a",): torch.zeros(2)},
        {"a": 3},
        {"a": torch.zeros(2, device="meta")},
        {"a": torch.eye(2).to_sparse()},
    ],
)
def test_a_state_dict_is_names_with_numbers(tmp_path, entry):
    torch.save({"features.0.weight": torch.zeros(1)} | entry, tmp_path / "odd.pth")
    with refused("odd.pth: no state dict"):
        PerceptualDistance("squeeze", tmp_path / "odd.pth", "x")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(tmp_path, value):
    path = write_backbone(tmp_path / "broken.pth")
    state = torch.load(path, weights_only=True)
    for name in ("features.3.squeeze.bias", "features.12.expand1x1.weight"):
        state[name].view(-1)[1] = value
    torch.save(state, path)
    with refused("broken.pth", "not finite features.3.squeeze.bias and 1 more"):
        PerceptualDistance("squeeze", path, "x")


def test_any_name_is_taken_and_every_tensor_checked(tmp_path):
    path = write_backbone(tmp_path / "mine.pth")
    assert PerceptualDistance("squeeze", path, "x").describe()["sha256"] == file_hash(path)
    with refused(
        "mine.pth: not the weights of alex",
        "missing features.3.weight and 7 more",
        "unexpected features.3.squeeze.weight",
    ):
        PerceptualDistance("alex", path, "x")
    state = torch.load(path, weights_only=True)
    for name, value in (("features.0.weight", torch.zeros(64, 3, 5, 5)), ("extra", torch.zeros(1))):
        torch.save({**state, name: value}, tmp_path / "changed.pth")
        with refused("changed.pth", name):
            PerceptualDistance("squeeze", tmp_path / "changed.pth", "x")


def test_heads_come_with_torchmetrics():
    heads = read_lpips_heads("vgg")
    assert {tuple(value.shape) for value in heads.values()} == {(1, c, 1, 1) for c in (64, 128, 256, 512)}
    with refused("torchmetrics"):
        read_lpips_heads("resnet")


def test_published_names_carry_hashes():
    for name in pretrained.BACKBONES.values():
        assert pretrained.HASH_IN_NAME.search(name)
