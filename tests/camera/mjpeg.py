"""A camera: MJPEG over HTTP on loopback, that can be killed, come back at the same port, hang, or send rubbish."""

import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np


def jpeg(value: int, size_wh=(160, 120)) -> bytes:
    image = np.full((size_wh[1], size_wh[0], 3), value, np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


class MjpegCamera:
    def __init__(self, *, fps: float = 50.0, size_wh=(160, 120)) -> None:
        self.fps = fps
        self.size_wh = size_wh
        self.hangs = threading.Event()
        self.connections = 0
        self.authorizations: list[str | None] = []
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self._open: set[socket.socket] = set()
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/video.mjpg"

    def start(self) -> None:
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera.connections += 1
                camera.authorizations.append(self.headers.get("Authorization"))
                camera._open.add(self.connection)
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                for number in range(1_000_000):
                    body = jpeg(number % 256, camera.size_wh)
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                    self.wfile.write(head + body + b"\r\n")
                    time.sleep(1 / camera.fps)
                    while camera.hangs.is_set():
                        time.sleep(0.01)

            def log_message(self, *_arguments) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            allow_reuse_address = True

            def handle_error(self, *_arguments) -> None:
                pass  # a client that has gone

        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def kill(self) -> None:
        """Close the port and every connection, as a power cut does."""
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._server = None
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._open.clear()
