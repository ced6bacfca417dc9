"""A real web server on the loopback interface: serves a folder, and misbehaves on request."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Behave = Callable[[SimpleHTTPRequestHandler], bool]


@contextlib.contextmanager
def serve(folder: Path, behave: Behave = lambda handler: False) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder, unless ``behave(handler)`` answers itself and returns True. Yields the address and what was asked."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                if not behave(self):
                    super().do_GET()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    server.daemon_threads = False  # closing waits for handlers, so that what they noted is there
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def endless(handler: SimpleHTTPRequestHandler, limit: int = 1 << 26) -> int:
    """Send bytes until the client hangs up, and say how many went."""
    handler.send_response(200)
    handler.end_headers()
    sent = 0
    with contextlib.suppress(OSError):
        while sent < limit:
            handler.wfile.write(b" " * 65536)
            sent += 65536
    return sent
