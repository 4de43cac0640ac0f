"""A web server on this machine that behaves as those of the world do, and HDTF tables whose addresses point at it."""

import http.server
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHUNK = 1 << 14
ALWAYS = {"gone": 404, "removed": 410, "forbidden": 403, "broken": 500}
MPD = """<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT6S" profiles="urn:mpeg:dash:profile:full:2011">
<Period>
<AdaptationSet mimeType="video/mp4"><Representation id="picture" codecs="avc1.42E01E" width="64" height="64" bandwidth="9000">
<BaseURL>/ok/picture.mp4</BaseURL></Representation></AdaptationSet>
<AdaptationSet mimeType="audio/mp4"><Representation id="sound" codecs="mp4a.40.2" audioSamplingRate="16000" bandwidth="900">
<BaseURL>/ok/sound.m4a</BaseURL></Representation></AdaptationSet>
</Period></MPD>"""  # noqa: E501


class Server(http.server.ThreadingHTTPServer):
    """The first part of an address says how it behaves, the last one which of `files` it sends.

    Args:
        pause: seconds between two chunks of what comes from /slow/.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []  # path and Range
        self.counts: Counter[str] = Counter()
        self.pause = 0.05

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"

    def ranges(self, path: str) -> list[str | None]:
        return [asked for one, asked in self.requests if one == f"/{path}"]


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    """/busy/ is 429 for the first two requests. The first time that the data are asked for, after the look at the
    address, /cut/ breaks off half way, and so does /short/, which does not say how long it is. /page/ is HTML, /lie/
    calls that a video. /later/ asks to wait an hour, /signed/ wants a cookie."""

    server: Server

    def do_GET(self) -> None:
        kind, _, name = self.path[1:].partition("/")
        self.server.requests.append((self.path, self.headers.get("Range")))
        self.server.counts[self.path] += 1
        count = self.server.counts[self.path]
        if kind == "signed" and self.headers.get("Cookie") != "name=Anna":
            self._refuse(401, None)
        elif kind in ALWAYS or (kind == "busy" and count <= 2) or kind == "later":
            self._refuse(ALWAYS.get(kind, 429), {"busy": "0", "later": "3600"}.get(kind))
        elif kind == "dash":
            self._send(MPD.encode(), "application/dash+xml")
        elif kind in ("page", "lie"):
            body = b"<html><head><title>Sorry</title></head><body>Nothing here</body></html>"
            self._send(body, "text/html" if kind == "page" else "video/mp4")
        else:
            body = self.server.files[name]
            stop = len(body) // 2 if kind in ("cut", "short") and count == 2 else len(body)
            self._send(body, "video/mp4", stop, self.server.pause if kind == "slow" else 0.0, length=kind != "short")

    def _refuse(self, status: int, wait: str | None) -> None:
        self.send_response(status)
        if wait is not None:
            self.send_header("Retry-After", wait)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, body: bytes, kind: str, stop: int | None = None, pause: float = 0.0, length: bool = True) -> None:
        asked = self.headers.get("Range") if length else None
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Type", kind)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if length:
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.close_connection = True
        try:
            for place in range(start, len(body) if stop is None else stop, CHUNK):
                self.wfile.write(body[place : min(place + CHUNK, stop or len(body))])
                time.sleep(pause)
        except OSError:  # the other side has seen enough
            pass

    def log_message(self, *_: object) -> None:
        """Not on the terminal."""


def write_tables(folder: Path, videos: dict[str, str], times: str = "00:01-00:03 00:04-00:05") -> Path:
    """HDTF's tables with these videos of source RD; WDA and WRA have none."""
    folder.mkdir(exist_ok=True)
    for source in ("RD", "WDA", "WRA"):
        for table in ("video_url", "annotion_time", "crop_wh", "crop_ratio", "resolution"):
            (folder / f"{source}_{table}.txt").write_text("")
    (folder / "RD_video_url.txt").write_text("".join(f"{name} {url}\n" for name, url in videos.items()))
    (folder / "RD_annotion_time.txt").write_text("".join(f"{name}.mp4 {times}\n" for name in videos))
    return folder
