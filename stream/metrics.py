"""The endpoint of a service's metrics, for Prometheus."""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import REGISTRY, CollectorRegistry, MetricsHandler, disable_created_metrics
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from stream.settings import SettingsError, StreamSettings

CLIENT_SECONDS = 5.0
"""Longest that a client may take to send its request, or to take the next part of the answer."""


class _Handler(MetricsHandler):
    timeout = CLIENT_SECONDS


class _Server(socketserver.TCPServer):
    """Answers one client after another, so that any number of them takes one thread."""

    allow_reuse_address = True  # of connections that have ended

    def handle_error(self, *_: object) -> None:
        """Say nothing: a client that goes away has no answer, and asks again."""


def serve(settings: StreamSettings, log: logging.Logger) -> None:
    """Answer scrapes at ``METRICS_PORT`` from now on, on a thread of its own.

    Raises
    ------
    SettingsError
        When nobody can listen there.
    """
    host, port = settings.metrics_host, settings.metrics_port
    # They would double the series of counters, and Prometheus has no use for them.
    disable_created_metrics()  # type: ignore[no-untyped-call] # of prometheus-client
    try:
        _Server.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        server = _Server((host, port), _Handler)
    except OSError as error:
        raise SettingsError(
            f"METRICS_PORT={port}: nobody can listen on METRICS_HOST={host}:"
            f" {error.strerror or error}; give each service of a machine a port of its own"
        ) from None
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    address = f"[{host}]" if ":" in host else host
    log.info("metrics at http://%s:%d/metrics", address, port)


class ManyHistogram(Collector):
    """A histogram that takes many values at once; prometheus-client's own takes one.

    Parameters
    ----------
    bounds : sequence of float
        Upper bounds of the buckets, ascending, without infinity.

    Examples
    --------
    >>> delays = ManyHistogram("delay_seconds", "How long.", [1, 10], CollectorRegistry())
    >>> delays.observe([0.5, 2.0, 3.0, 60.0])
    >>> [sample.value for metric in delays.collect() for sample in metric.samples]
    [1.0, 3.0, 4.0, 4.0, 65.5]
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        bounds: Sequence[float],
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = [float(bound) for bound in bounds]
        self._found = [0] * (len(bounds) + 1), 0.0  # replaced as a whole: a scrape reads it
        registry.register(self)

    def observe(self, values: Iterable[float]) -> None:
        """Take in values; only one thread does so."""
        counts, total = self._found[0].copy(), self._found[1]
        for value in values:
            counts[bisect_left(self._bounds, value)] += 1
            total += value
        self._found = counts, total

    def collect(self) -> Iterable[Metric]:
        """Return the histogram as it is now."""
        counts, total = self._found
        names = [*map(str, self._bounds), "+Inf"]
        buckets = [*zip(names, map(float, accumulate(counts)), strict=True)]
        yield HistogramMetricFamily(self._name, self._documentation, buckets, total)
