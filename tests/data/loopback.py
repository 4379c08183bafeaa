"""A server of files on 127.0.0.1 that stalls, cuts off and answers 500 on order."""

import threading
import time
import urllib.parse
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def serve(answer):
    """A server that gives every GET request to `answer`, in threads of its own, and its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}"


class Host:
    """Serves a folder with ranges; `plan` orders the next answers: a status, cut, stall, whole, more or flood."""

    def __init__(self, folder: Path):
        self.plan: list = []
        self.asked: list[tuple[str, str | None]] = []
        self.folder = folder
        self.server, self.address = serve(self.answer)

    def answer(self, request):
        path = self.folder / urllib.parse.unquote(request.path.lstrip("/"))
        asked = request.headers.get("Range")
        self.asked.append((path.name, asked))
        order = self.plan.pop(0) if self.plan else None
        if order == "stall":
            return time.sleep(1.0)
        if isinstance(order, int) or not path.is_file():
            return request.send_error(order or 404)
        body = path.read_bytes()
        if asked and order != "whole":
            first, last = map(int, asked.removeprefix("bytes=").split("-"))
            body = body[first : last + 1 + (order == "more")]
            request.send_response(206)
        else:
            request.send_response(200)
        if order == "flood":  # without end, but for the client's patience
            request.end_headers()
            with suppress(OSError):
                while True:
                    request.wfile.write(bytes(1 << 20))
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: len(body) // 2] if order == "cut" else body)
        return None
