"""A proxy that cuts or stalls the connections of a service to a broker at a chosen moment."""

from __future__ import annotations

import math
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from local.kafka import LocalKafka, free_port

Moment = Literal["before", "half", "answered"]

PRODUCE, METADATA = 0, 3
ADD_PARTITIONS, ADD_OFFSETS, END_TRANSACTION, COMMIT_OFFSETS = 24, 25, 26, 28
"""Numbers of requests in Kafka's protocol (``api_key``)."""


@dataclass
class Strike:
    """What happens to the connections, and when.

    Attributes
    ----------
    kind : "cut" or "stall"
        "cut" resets every connection, "stall" stops all bytes on them. New connections work.
    api : int or None
        Strikes at a request of this kind; at any, if ``None``.
    moment : "before", "half" or "answered"
        Strikes before the request reaches the broker, when half of its bytes have, or when its
        answer is on the way back.
    nth : int
        Strikes at the n-th such request.
    struck : threading.Event
        Set when it has happened.
    """

    kind: Literal["cut", "stall"]
    api: int | None
    moment: Moment = "before"
    nth: int = 1
    struck: threading.Event = field(default_factory=threading.Event)


class Proxy:
    """Passes bytes between clients and one broker, and strikes when told to.

    Parameters
    ----------
    port : int
        Port of the broker on 127.0.0.1.

    Attributes
    ----------
    port : int
        Where it listens on 127.0.0.1.
    requests : Counter of int
        How often each kind of request came.
    produce_bytes_a_second : float
        How fast each connection lets what is produced through.
    """

    def __init__(self, port: int) -> None:
        self.requests: Counter[int] = Counter()
        self.produce_bytes_a_second = math.inf
        self._broker = port
        self._listener = socket.create_server(("127.0.0.1", free_port()))
        self.port = self._listener.getsockname()[1]
        self._links: set[_Link] = set()
        self._strike: Strike | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    def strike(self, strike: Strike) -> Strike:
        """Arm a strike, in place of one that has not happened yet, and return it."""
        with self._lock:
            self._strike = strike
        return strike

    def give_back(self, strike: Strike) -> None:
        """Arm a strike again that could not happen, unless there is a newer one."""
        with self._lock:
            self._strike = self._strike or strike

    def cut(self) -> None:
        """Reset every connection now."""
        with self._lock:
            links, self._links = self._links, set()
        for link in links:
            link.cut()

    def stall(self) -> None:
        """Stop all bytes on the connections that there are now."""
        with self._lock:
            for link in self._links:
                link.stalled = True

    def due(self, api: int) -> Strike | None:
        """Count a request; return the strike that is to happen at it."""
        with self._lock:
            self.requests[api] += 1
            strike = self._strike
            if strike is None or strike.api not in (None, api):
                return None
            strike.nth -= 1
            if strike.nth > 0:
                return None
            self._strike = None
            return strike

    def carry_out(self, strike: Strike) -> None:
        """Cut or stall, then set `Strike.struck`."""
        {"cut": self.cut, "stall": self.stall}[strike.kind]()
        strike.struck.set()

    def _accept(self) -> None:
        with suppress(OSError):  # closed at the end
            while True:
                client = self._listener.accept()[0]
                try:
                    broker = socket.create_connection(("127.0.0.1", self._broker), timeout=5)
                except OSError:
                    client.close()
                    continue
                broker.settimeout(None)
                link = _Link(self, client, broker)
                with self._lock:
                    self._links.add(link)
                for pump in (link.requests, link.answers):
                    threading.Thread(target=pump, name="proxy", daemon=True).start()


class _Link:
    """One connection of a client, and the one of its own to the broker."""

    def __init__(self, proxy: Proxy, client: socket.socket, broker: socket.socket) -> None:
        self.stalled = False
        self._proxy = proxy
        self._client = client
        self._broker = broker
        self._at_answer: Strike | None = None

    def cut(self) -> None:
        for side in (self._client, self._broker):
            with suppress(OSError):
                # With a linger time of 0, closing resets the connection.
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                side.shutdown(socket.SHUT_RD)  # wakes the thread that reads from it
                side.close()

    def requests(self) -> None:
        with suppress(OSError):
            while head := _read(self._client, 6):
                size, api = struct.unpack(">ih", head)
                frame = head + _read(self._client, size - 2)
                strike = self._proxy.due(api)
                if strike and strike.moment == "answered":
                    self._at_answer = strike
                elif strike:
                    if strike.moment == "half":
                        self._broker.sendall(frame[: len(frame) // 2])
                    self._proxy.carry_out(strike)
                if api == PRODUCE:
                    time.sleep(len(frame) / self._proxy.produce_bytes_a_second)
                if not self.stalled:
                    self._broker.sendall(frame)
        self._end()

    def answers(self) -> None:
        with suppress(OSError):
            while answer := self._broker.recv(65_536):
                # Taken first: the end of the connection gives back what has not happened.
                strike, self._at_answer = self._at_answer, None
                if strike:
                    self._proxy.carry_out(strike)
                if not self.stalled:
                    self._client.sendall(answer)
        self._end()

    def _end(self) -> None:
        strike, self._at_answer = self._at_answer, None
        if strike:  # the connection ended before the answer came
            self._proxy.give_back(strike)
        self.cut()


def _read(side: socket.socket, size: int) -> bytes:
    """Read `size` bytes; none, if the connection ends before."""
    found = b""
    while len(found) < size:
        more = side.recv(size - len(found))
        if not more:
            return b""
        found += more
    return found


def behind_proxy(folder: Path) -> tuple[LocalKafka, Proxy]:
    """Return a broker, not yet started, and a proxy to a listener of its own.

    Through the proxy, the broker gives the proxy's address as its own.
    """
    direct, proxied, controller = free_port(), free_port(), free_port()
    proxy = Proxy(proxied)
    listeners = f"PLAINTEXT://127.0.0.1:{direct},PROXIED://127.0.0.1"
    return (
        LocalKafka(
            folder,
            direct,
            {
                "controller.quorum.voters": f"1@127.0.0.1:{controller}",
                "listeners": f"{listeners}:{proxied},CONTROLLER://127.0.0.1:{controller}",
                "advertised.listeners": f"{listeners}:{proxy.port}",
                "listener.security.protocol.map": (
                    "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT"
                ),
                "inter.broker.listener.name": "PLAINTEXT",
            },
        ),
        proxy,
    )
