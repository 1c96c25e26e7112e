"""Shows a topic, a record a line, as Kafka's console consumer does, but without Java.

It shows what is on the topic and then what is new, until Ctrl-C. Records of transactions that are
open or aborted are left out. On a terminal, what is not printable is escaped, and a line is cut to
2,000 characters; in a pipe or a file, a record stands as it is.

Exit status: 0 when it is stopped or done, 1 when there is no such topic or it cannot be read, 2 for
a wrong setting or option.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C ends it at any moment: there is nothing to close
    from stream.early import end_at_once

    end_at_once()

import argparse
import os
import select
import sys
from collections.abc import Iterator
from functools import partial

from stream import clients
from stream.arguments import argument_parser, whole_number
from stream.command import command
from stream.quoting import one_line
from stream.service import Fatal
from stream.settings import StreamSettings

POLL_RECORDS = 500
_OFFSETS = {"beginning": "earliest", "end": "latest"}


def main() -> int:
    """Run the command line; return its exit status."""
    parser = argument_parser("python -m local.topic", __doc__, StreamSettings)
    add = parser.add_argument
    add("topic", nargs="?", help="without one, the topics that exist are listed")
    add("--from", dest="start", choices=_OFFSETS, default="beginning", help="where to begin")
    add("--count", type=whole_number(1), metavar="N", help="records to show; all by default")
    return command(StreamSettings, partial(_run, parser.parse_args()))


def _run(options: argparse.Namespace, settings: StreamSettings) -> int:
    try:
        for values in _polled(options, settings):
            sys.stdout.buffer.writelines(map(_line, values))
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes once more when it ends
    return 0


def _polled(options: argparse.Namespace, settings: StreamSettings) -> Iterator[list[bytes | None]]:
    """Yield the values of the records of one poll after another, or the names of the topics."""
    offset = _OFFSETS[options.start]
    with clients.closing(clients.consumer(settings, auto_offset_reset=offset)) as consumer:
        topics = sorted(consumer.topics())
        if options.topic is None:
            yield [topic.encode() for topic in topics]
            return
        if options.topic not in topics:
            there = ", ".join(topics) or "none"
            servers = settings.kafka_bootstrap_servers
            raise Fatal(f"no topic {options.topic} at {servers}; there are: {there}")
        consumer.subscribe([options.topic])
        left = options.count or sys.maxsize
        while left and not _is_closed():
            polled = consumer.poll(timeout_ms=500, max_records=min(left, POLL_RECORDS))
            values = [record.value for records in polled.values() for record in records]
            left -= len(values)
            yield values


def _is_closed() -> bool:
    """Tell whether nobody reads the output any more, before the next record would show it."""
    output = select.poll()
    output.register(1, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in output.poll(0))


def _line(value: bytes | None) -> bytes:
    value = b"null" if value is None else value
    if sys.stdout.isatty():
        shown = one_line(value.decode(errors="backslashreplace"))
        value = shown.encode(sys.stdout.encoding, "backslashreplace")
    return value + b"\n"


if __name__ == "__main__":
    sys.exit(main())
