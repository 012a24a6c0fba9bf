"""``GET /metrics`` over HTTP, for Prometheus.

It wants ``Authorization: Bearer TOKEN`` (the cluster's token, compared in constant time) and
refuses everything else. The server listens on this machine, or with TLS. Figures are collected when
they are asked for: nothing runs while nobody asks.
"""

import hmac
import logging
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from minigfs.errors import InvalidConfig
from minigfs.transport.address import Address, TcpAddress, parse_address
from minigfs.transport.metrics import Metric, encode_metrics
from minigfs.transport.security import Security, check_listen_address, server_context

__all__ = ["MetricsServer"]

logger = logging.getLogger(__name__)

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_REQUEST_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 3.0


class MetricsServer:
    """Serves from ``start`` to ``stop``, in threads of its own."""

    def __init__(
        self,
        collect: Callable[[], Iterable[Metric]],
        address: Address,
        security: Security,
        *,
        insecure: bool = False,
    ) -> None:
        """Raises ``InvalidConfig`` for an address that others could listen in on."""
        check_listen_address(address, security, insecure)
        listen = parse_address(address)
        if not isinstance(listen, TcpAddress):
            raise InvalidConfig(f"--metrics {address}: give HOST:PORT")
        self._server = _Server((listen.host, listen.port), _handler(collect, security.token))
        if security.tls is not None:
            context = server_context(security.tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="metrics", daemon=True
        )

    def start(self, directory: Path | None = None) -> Address:
        """The bound address, which is also written to ``metrics.address`` in the directory."""
        host, port = self._server.server_address[:2]
        bound = f"{host!s}:{port}"
        if directory is not None:
            part = directory / "metrics.address.part"
            part.write_text(f"{bound}\n", encoding="ascii")
            part.replace(directory / "metrics.address")
        self._thread.start()
        logger.info("metrics are served on %s", bound)
        return bound

    def stop(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(_STOP_TIMEOUT_S)
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("a request for metrics from %s failed", client_address)


def _handler(collect: Callable[[], Iterable[Metric]], token: bytes) -> type[BaseHTTPRequestHandler]:
    expected = b"Bearer " + token

    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_TIMEOUT_S
        server_version = "minigfs"
        sys_version = ""

        def do_GET(self) -> None:
            given = self.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, expected):
                self._answer(401, b"give the cluster's token as 'Authorization: Bearer TOKEN'\n")
            elif self.path != "/metrics":
                self._answer(404, b"there is only /metrics here\n")
            else:
                self._answer(200, encode_metrics(collect()))

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", "Bearer")
            self.send_header("Content-Type", _CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
            logger.debug(format, *args)

    return Handler
