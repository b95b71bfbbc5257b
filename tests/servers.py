"""Servers on this machine, good ones and bad ones."""

import contextlib
import socketserver
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PATIENCE = 30  # seconds after which a test takes a call for hanging


@contextlib.contextmanager
def serving(handler):
    """A server on this machine; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder."""

    def log_message(self, *_):
        pass


class Cut(Quiet):
    """Serves archives that lack their last byte."""

    def do_GET(self):
        content = b"" if self.path == "/" else Path(self.translate_path(self.path)).read_bytes()[:-1]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Ranges(Quiet):
    """Serves what is asked for with Range, at most so many bytes to a connection; takes down the ranges asked for."""

    def __init__(self, *arguments, most: int = 1 << 30, asked: list | None = None, **options):
        self.most, self.asked = most, [] if asked is None else asked
        super().__init__(*arguments, **options)

    def do_GET(self):
        if self.path == "/":
            return super().do_GET()
        content, start = Path(self.translate_path(self.path)).read_bytes(), 0
        if self.headers["Range"]:
            self.asked.append(self.headers["Range"])
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : start + self.most])


class BreaksOff(Ranges):
    """Knows no Range: serves all from the beginning, and never more than so many bytes of it."""

    def do_GET(self):
        del self.headers["Range"]
        super().do_GET()


class HangsUp(Quiet):
    """Promises more than it sends."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 500)


class Misses(Quiet):
    """Answers, but does not have the files."""

    def do_GET(self):
        self.send_error(404)


class NoHTTP(socketserver.StreamRequestHandler):
    """Answers in another protocol."""

    def handle(self):
        self.wfile.write(b"220 mail.example.org ready\r\n")


class Garbles(Quiet):
    """Answers the first request and then in another protocol."""

    def do_GET(self):
        if self.path == "/":
            self.send_response(200)
            self.end_headers()
        else:
            self.wfile.write(b"220 mail.example.org ready\r\n")


class FallsSilent(Quiet):
    """Answers the first request and no further one."""

    def do_GET(self):
        if self.path != "/":
            time.sleep(PATIENCE)
        self.send_response(200)
        self.end_headers()
