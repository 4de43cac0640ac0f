"""A web server on this machine that behaves well or badly, as its addresses say."""

import http.server
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

CHUNK = 1 << 14
ALWAYS = {"gone": 404, "forbidden": 403}


class Server(http.server.ThreadingHTTPServer):
    """/KIND/film.mp4 sends `film`. /gone/ and /forbidden/ refuse; /busy/ refuses the data twice.

    /cut/ breaks off half way when the data are first asked for; /slow/ waits `pause` seconds between chunks; /page/ is
    HTML; /signed/ wants a cookie.
    """

    daemon_threads = True

    def __init__(self, film: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.film, self.pause = film, 0.05
        self.ranges: list[tuple[str, str | None]] = []  # kind and header Range of every request
        self.counts: Counter[str] = Counter()

    def url(self, kind: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{kind}/film.mp4"


@contextmanager
def serving(film: bytes) -> Iterator[Server]:
    with Server(film) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        kind, server = self.path.split("/")[1], self.server
        server.ranges.append((kind, self.headers.get("Range")))
        server.counts[kind] += 1
        count = server.counts[kind]
        if kind in ALWAYS or (kind == "busy" and count in (2, 3)):
            self.send_error(ALWAYS.get(kind, 503))
        elif kind == "signed" and self.headers.get("Cookie") != "name=Anna":
            self.send_error(401)
        elif kind == "page":
            self._send(b"<html><body>Nothing here</body></html>", "text/html")
        else:
            stop = len(server.film) // 2 if kind == "cut" and count == 2 else len(server.film)
            self._send(server.film, "video/mp4", stop, server.pause if kind == "slow" else 0.0)

    def _send(self, body: bytes, kind: str, stop: int | None = None, pause: float = 0.0) -> None:
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Type", kind)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.close_connection = True
        try:
            for place in range(start, len(body) if stop is None else stop, CHUNK):
                self.wfile.write(body[place : min(place + CHUNK, stop or len(body))])
                time.sleep(pause)
        except OSError:  # the client has closed the connection
            pass

    def log_message(self, *_: object) -> None:
        """Print nothing."""
