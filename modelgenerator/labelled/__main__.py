"""Writes the labelled records of the data topic to a file, to train a model on.

A label may be in the record, or have come later on the label topic.

The file is CSV or Parquet, by the ending of its name. Each record has a line with its partition,
offset, timestamp and id, its features under their names in the schema (else x0, x1, ...), and its
label. Publish a model that was trained on the file, or on a part of it, with --trained-to FILE.

Exit status: 0 when it is written, 1 when it is not, with one line that says why, 2 for a wrong
setting or option.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from kafka import KafkaConsumer, TopicPartition
from msgspec.structs import replace

from modelgenerator.labelled.tables import (
    ENDINGS,
    PLACE,
    as_parquet,
    columns,
    write_csv,
)
from modelgenerator.late_labels import LateLabels
from modelgenerator.publish.newest import Found, read_stream
from modelgenerator.scan import scan
from modelgenerator.settings import Settings
from modelgenerator.whole_file import whole_file
from stream import clients, reading
from stream.arguments import argument_parser, whole_number
from stream.command import command
from stream.layout import Layout
from stream.layout import of as layout_of
from stream.quoting import one_line
from stream.records import RecordError, decode_record
from stream.service import Fatal, Stop

_READ = (
    "in pandas: read_csv({!r}, keep_default_na=False, na_values='', dtype=dict.fromkeys({}, str))"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argument_parser("python -m modelgenerator.labelled", __doc__, Settings)
    add = parser.add_argument
    add("file", type=_file, help="file to write, .csv or .parquet")
    add(
        "--last",
        type=whole_number(1),
        metavar="N",
        help="of the N newest offsets of each partition only",
    )
    add("--force", action="store_true", help="overwrite the file")
    return command(Settings, partial(_run, parser.parse_args(arguments)))


def _file(text: str) -> Path:
    path = Path(text)
    if path.suffix not in ENDINGS:
        raise argparse.ArgumentTypeError(f"{text}: expected a name that ends in .csv or .parquet")
    return path


def _run(options: argparse.Namespace, settings: Settings) -> int:
    path: Path = options.file
    topic, stop, left_out = settings.data_topic, Stop(), Counter[str]()
    with (
        clients.closing(clients.consumer(settings, max_poll_records=5_000)) as consumer,
        whole_file(path, options.force) as written,
    ):
        stream = read_stream(consumer, settings, stop)
        schema, width = stream.schema, stream.width
        if width is None:
            raise Fatal(f"{topic}: no record that can be read, nothing was written")
        layout = layout_of(schema) if schema else Layout(width)
        names = columns(schema.feature_names if schema else None, width)
        text = written.with_name("records.csv") if path.suffix == ".parquet" else written
        found = labelled(consumer, settings, layout, options.last, left_out, stop)
        count = write_csv(text, names, found)
        left = ", ".join(f"{number:,} {why}" for why, number in left_out.items()) or "nothing"
        if not count:
            raise Fatal(f"{topic}: no labelled record, nothing was written; left out: {left}")
        if text != written:
            as_parquet(text, written, names, layout.types)
    print(f"wrote {count:,} labelled records of {topic} to {path}, {width} features each")
    print(f"left out: {left}")
    features = names[len(PLACE) : -1]
    if schema and (renamed := [name for name in features if name not in schema.feature_names]):
        print(
            f"renamed, as their names were taken: {one_line(', '.join(renamed), 300)}; train on an"
            " array, so that the model does not know these names"
        )
    texts = [
        name for name, kind in zip(features, layout.types or (), strict=False) if kind == "category"
    ]
    if texts and path.suffix == ".csv":
        print(_READ.format(str(path), texts))
    print(f"publish what was trained on it with --trained-to {path}")
    return 0


def labelled(
    consumer: KafkaConsumer,
    settings: Settings,
    layout: Layout,
    last: int | None,
    left_out: Counter[str],
    stop: Stop,
) -> Iterator[Found]:
    """Yield the labelled records that fit a layout, as it reads them, partition by partition.

    Parameters
    ----------
    last : int or None
        How many offsets of each partition are read; ``None`` for all.
    left_out : Counter
        Counts the others, by the reason.
    """
    topic = settings.data_topic
    for partition in sorted(consumer.partitions_for_topic(topic)):
        start, end = reading.bounds(consumer, TopicPartition(topic, partition), stop)
        first = start if last is None else max(start, end - last)
        late = LateLabels(consumer, settings, partition, first, end, stop)
        for read in scan(consumer, topic, [partition], last, stop):
            try:
                record = decode_record(read.value)
            except RecordError:
                left_out["invalid"] += 1
                continue
            label = late.of(read.offset) if record.label is None else record.label
            if label is None:
                left_out["unlabelled"] += 1
                continue
            try:
                record = layout.read(replace(record, label=label))
            except RecordError:
                left_out["that do not fit the stream"] += 1
                continue
            yield Found(read.partition, read.offset, read.timestamp, record)


if __name__ == "__main__":
    sys.exit(main())
