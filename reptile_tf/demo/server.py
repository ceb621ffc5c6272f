"""HTTP on the loopback interface, for browsers of this machine alone."""

import json
import sys
import traceback
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from reptile_tf.demo.answers import Answers
from reptile_tf.demo.requests import body_of
from reptile_tf.errors import InputError

ADDRESS = "127.0.0.1"
LARGEST_BODY = 2**20
PAGE = Path(__file__).parent
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
FILES = {"/": PAGE / "page.html"} | {
    f"/{path.name}": path for path in PAGE.iterdir() if path.suffix in KINDS}
# Nothing but these files and answers: no other address is ever asked.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store"}


class Server(ThreadingHTTPServer):
    """Serves the pages; a thread for each connection.

    Args:
      answers: what is asked of them.
      port: 0 takes a free one.

    Attributes:
      url: of the page.

    Raises:
      InputError: the port cannot be had.
    """

    daemon_threads = True

    def __init__(self, answers: Answers, port: int = 0) -> None:
        self.answers = answers
        try:
            super().__init__((ADDRESS, port), Handler)
        except (OSError, OverflowError) as e:
            raise InputError(f"--port={port} cannot be had ({e}): give "
                             "another, or 0 for a free one") from e
        self.url = f"http://{ADDRESS}:{self.server_port}/"
        # The only names by which a browser may call this server: of another,
        # even one that leads here, it is not the user's own page that asks.
        names = (ADDRESS, "localhost")
        self.hosts = {f"{name}:{self.server_port}" for name in names}
        if self.server_port == 80:  # Browsers leave it out.
            self.hosts.update(names)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing, where a browser went away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 30  # Seconds that a client may keep a thread waiting.

    def do_GET(self) -> None:
        """A file of the page, or what the page shows of this server."""
        if not self._is_from_here():
            return
        if self.path == "/about":
            self._send_json(HTTPStatus.OK, self.server.answers.about)
        elif self.path in FILES:
            path = FILES[self.path]
            self._send(HTTPStatus.OK, f"{KINDS[path.suffix]}; charset=utf-8",
                       path.read_bytes())
        else:
            self._refuse(HTTPStatus.NOT_FOUND, f"{self.path} is not here")

    def do_POST(self) -> None:
        """An answer of `Answers`; of an InputError its sentence."""
        if not self._is_from_here():
            return
        answer = self.server.answers.posts.get(self.path)
        if answer is None:
            return self._refuse(HTTPStatus.NOT_FOUND,
                                f"{self.path} is not here")
        try:
            self._send_json(HTTPStatus.OK, answer(body_of(self._content())))
        except InputError as e:
            self._refuse(HTTPStatus.BAD_REQUEST, str(e))
        except (ConnectionError, TimeoutError):  # The page is gone.
            raise
        except Exception:
            traceback.print_exc()
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR,
                         "an error of the server: its terminal says which")

    def _is_from_here(self) -> bool:
        """Refuse requests that another site's page may have made."""
        hosts = self.headers.get_all("Host", [])
        origins = self.headers.get_all("Origin", [])
        allowed = self.server.hosts
        if len(hosts) == 1 and hosts[0].lower() in allowed and all(
                origin.lower().removeprefix("http://") in allowed
                for origin in origins):
            return True
        self._refuse(HTTPStatus.FORBIDDEN,
                     f"only {self.server.url} itself may ask")
        return False

    def _content(self) -> bytes:
        if self.headers.get_content_type() != "application/json":
            raise InputError("the body must be application/json")
        length = self.headers.get("Content-Length", "")
        # Longer numbers are too large, whatever they are.
        if not (length.isascii() and length.isdigit() and len(length) < 9
                and int(length) <= LARGEST_BODY):
            raise InputError("the body needs a Content-Length of at most "
                             f"{LARGEST_BODY:,} bytes")
        return self.rfile.read(int(length))

    def _refuse(self, status: HTTPStatus, sentence: str) -> None:
        # The body may be unread, and is not to be taken for a request.
        self.close_connection = True
        self._send_json(status, {"error": sentence})

    def _send_json(self, status: HTTPStatus, answer: Any) -> None:
        try:
            text = json.dumps(answer, allow_nan=False)
        except ValueError:  # JavaScript would not read it.
            status = HTTPStatus.UNPROCESSABLE_ENTITY
            text = json.dumps({"error": "the adapted network's answer is not "
                               "finite: it diverges on these examples"})
        self._send(status, "application/json", text.encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def version_string(self) -> str:
        """Of the Server header; the default tells Python's version."""
        return "reptile_tf"

    def log_message(self, *_: Any) -> None:
        """Nothing: every stroke is a request."""
