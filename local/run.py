"""Kafka, the three services and the dashboard on this machine: they go on where they were stopped.

``python -m local.run`` shows what the services log until Ctrl-C. Then it stops each of them, and
Kafka last. Everything is kept in one folder: the topics, the keys, predictor.log. The settings of
the services are passed on, except for those that say where Kafka is. ``. .run/env`` tells a shell
where this Kafka and these keys are.
"""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from local.kafka import LocalKafka, add_port, until_interrupted
from local.process import watch
from local.services import SERVICES, settings_in, start, start_dashboard
from stream.arguments import argument_parser


def run(folder: Path, port: int) -> None:
    """Run everything until interrupted, or until something fails."""
    with ExitStack() as stack:
        broker = stack.enter_context(LocalKafka(folder / "kafka", port))
        own = settings_in(folder, broker.bootstrap_servers)
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in own.items()]
        (folder / "env").write_text("".join(lines))
        print(f"{broker.bootstrap_servers}, data in {folder}, Ctrl-C stops it", flush=True)
        env = {name: value for name, value in os.environ.items() if not name.startswith("KAFKA_")}
        processes = broker.processes
        for name in reversed(SERVICES):  # what was started last is stopped first: the source
            processes.append(start(name, env | own))
            stack.callback(processes[-1].stop)
        stack.callback(start_dashboard(env | own).stop)  # the others do not need it
        watch(processes)


def main() -> int:
    """Run the command line; return its exit status."""
    parser = argument_parser("python -m local.run", __doc__)
    add_port(parser)
    add = parser.add_argument
    add("--folder", type=Path, default=Path(".run"), help="keeps everything; .run by default")
    options = parser.parse_args()
    return until_interrupted(partial(run, options.folder.resolve(), options.port))


if __name__ == "__main__":
    sys.exit(main())
