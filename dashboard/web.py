"""The page over HTTP: its files, and what is new once a second."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import anyio
import msgspec
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboard.metrics import QualityMetrics
from dashboard.settings import DashboardSettings
from dashboard.state import State
from stream.service import Fatal
from stream.settings import SettingsError

log = logging.getLogger("dashboard")

FILES = Path(__file__).with_name("page")
SECONDS = 1.0
READERS = 100
"""Most connections at once; one more is answered with status 503."""

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class _Headers:
    """Sets the headers of every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app(scope, receive, answer)


def application(settings: DashboardSettings, state: State) -> Starlette:
    """Return what answers the browser."""

    async def page(_: Request) -> Response:
        return FileResponse(FILES / "index.html")

    async def whole(_: Request) -> Response:
        return Response(_object(state.shown), media_type="application/json")

    def model(request: Request) -> Response:
        found = state.model(request.path_params["version"])
        content = msgspec.json.encode(found)
        return Response(content, 200 if found else 404, media_type="application/json")

    async def events(_: Request) -> Response:
        return StreamingResponse(_events(state), media_type="text/event-stream")

    quality = CollectorRegistry()
    quality.register(QualityMetrics(lambda: msgspec.json.decode(state.shown["windows"])))

    def metrics(_: Request) -> Response:
        content = generate_latest(REGISTRY) + generate_latest(quality)
        return Response(content, media_type=CONTENT_TYPE_LATEST)

    # Where only this machine is meant, no foreign name may lead here: a page of somebody else
    # could read this one under its own name (DNS rebinding).
    names = ["localhost", "127.0.0.1", settings.dashboard_host] if settings.only_here else ["*"]
    return Starlette(
        routes=[
            Route("/", page),
            Route("/api/state", whole),
            Route("/api/models/{version:int}", model),
            Route("/events", events),
            Route("/metrics", metrics),
            Mount("/page", StaticFiles(directory=FILES)),
        ],
        middleware=[Middleware(_Headers), Middleware(TrustedHostMiddleware, allowed_hosts=names)],
    )


async def _events(state: State) -> AsyncIterator[bytes]:
    """Yield the parts that are new, once a second; an empty object where none is."""
    sent: dict[str, bytes] = {}
    while True:
        shown = state.shown
        new = {name: part for name, part in shown.items() if sent.get(name) != part}
        yield b"data: %b\n\n" % _object(new)
        sent = shown
        await anyio.sleep(SECONDS)


def _object(parts: dict[str, bytes]) -> bytes:
    return b"{%b}" % b",".join(b'"%b":%b' % (k.encode(), part) for k, part in parts.items())


class Page:
    """Serves the page on a thread of its own, as long as the process runs.

    Attributes
    ----------
    port : int

    Raises
    ------
    SettingsError
        When nobody can listen there.
    """

    def __init__(self, settings: DashboardSettings, state: State) -> None:
        self._settings = settings
        config: dict[str, Any] = {
            "log_config": None,
            "log_level": "error",
            "access_log": False,
            "lifespan": "off",
        }
        app = application(settings, state)
        self._server = uvicorn.Server(
            uvicorn.Config(app, limit_concurrency=READERS, server_header=False, **config)
        )
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)

    def __enter__(self) -> Self:
        host, port = self._settings.dashboard_host, self._settings.dashboard_port
        try:
            family = socket.getaddrinfo(host, port)[0][0]
            self._socket = socket.create_server((host, port), family=family)
        except OSError as error:
            raise SettingsError(
                f"DASHBOARD_PORT={port}: nobody can listen on DASHBOARD_HOST={host}:"
                f" {error.strerror}; take another port, or 0 for any free one"
            ) from None
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        self.port: int = self._socket.getsockname()[1]
        log.info("the page is at http://%s:%d", shown, self.port)
        if self._settings.only_here:
            log.info("only programs of this machine reach it (DASHBOARD_HOST)")
        else:
            log.warning("whoever reaches DASHBOARD_HOST=%s sees it: it asks for no password", host)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True

    def check(self) -> None:
        """Raise `Fatal` if the page is not served any more."""
        if not self._thread.is_alive():
            raise Fatal("the page is not served any more")

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])
