"""Settings of the datagenerator."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from datagenerator.dialect import NULLS, SEPARATORS
from stream.quoting import shown
from stream.settings import StreamSettings

BREAST_CANCER_RATE = 20.0
"""Its 569 records last half a minute at 20/s: slow enough to watch."""

LABEL_DELAY_RECORDS = 1_000_000

LONGEST_RANDOM = 10
"""A random delay lasts at most so many times the mean; one in 22,000 is cut off there."""

CATCH_UP_SECONDS = 0.5
"""What is caught up at most after a pause: so much closer than ``RATE`` says may records be."""

LAGS_LIMIT, LAG_LIMIT = 100, 100_000


def _label_delay(text: str) -> str:
    match = re.fullmatch(r"(?:(records|exponential):)?([0-9]{1,9}(?:\.[0-9]{1,9})?)", text)
    if not match or (
        match[1] == "records" and not ("." not in match[2] and int(match[2]) <= LABEL_DELAY_RECORDS)
    ):
        raise ValueError(
            "allowed are seconds (5), exponential:600 with the mean in seconds, or records:1000,"
            f" at most {LABEL_DELAY_RECORDS} records"
        )
    return text


LabelDelay = Annotated[str, AfterValidator(_label_delay)]
"""How long after its record a label comes, as people write it."""


def _label_lags(text: str) -> str:
    lags = [int(lag) if re.fullmatch(r" *[0-9]{1,9} *", lag) else 0 for lag in text.split(",")]
    if min(lags) < 1 or max(lags) > LAG_LIMIT or not len({*lags}) == len(lags) <= LAGS_LIMIT:
        raise ValueError(
            f"allowed are whole numbers of records from 1 to {LAG_LIMIT}, each once, separated by"
            f" commas (1,2,48), at most {LAGS_LIMIT} of them"
        )
    return ",".join(map(str, sorted(lags)))


LabelLags = Annotated[str, AfterValidator(_label_lags)]
"""How many records before are those whose labels are features; ascending."""


def _separator(text: str) -> str:
    found = SEPARATORS.get(text.lower(), "\t" if text == r"\t" else text)
    if len(found) != 1 or found in "\"'\r\n":
        raise ValueError(f"allowed is one character, or {', '.join(SEPARATORS)}")
    return found


def _encoding(text: str) -> str:
    names = {"utf-8": "utf-8", "utf-16": "utf-16", "iso8859-1": "latin-1"}
    with suppress(LookupError):
        return names[codecs.lookup(text).name]
    raise ValueError("allowed is utf-8, utf-16 or latin-1")


def _decimal(text: str) -> str:
    if text not in (".", ","):
        raise ValueError("allowed is . or ,")
    return text


def names(text: str | None, known: Iterable[str] = ()) -> list[str]:
    """Return the names in a setting, separated by commas; one with a comma stands in quotes.

    Examples
    --------
    >>> names('id, "height, cm"')
    ['id', 'height, cm']
    """
    if text is None or text in known:
        return [text] if text else []
    row = next(csv.reader([text], skipinitialspace=True), [])
    return [name for cell in row if (name := cell.strip())]


def in_setting(*names: str) -> str:
    """Return names as a setting has them and `names` reads them, unless they are long or odd."""
    plain = (name if shown(name) == f"'{name}'" else shown(name) for name in names)
    return ",".join(f'"{name}"' if "," in name else name for name in plain)


class Settings(StreamSettings):
    """What is sent, how fast, and how much of it."""

    stream: str = Field(
        "sea",
        description="`sea`, `agrawal`, `hyperplane`, `random_rbf`, `persistent` (synthetic, with"
        " drift), `breast_cancer` (569 real records), or a file, a folder or a pattern of files",
    )
    label: str | None = Field(None, description="Column of the file that holds the label")
    positive: str | None = Field(
        None,
        description="Value of the label that means 1; not needed where the values are 0 and 1, true"
        " and false, or yes and no",
    )
    drop: str | None = Field(
        None, description="Columns of the file that are left out, separated by commas"
    )
    types: str | None = Field(
        None,
        description="What columns hold, where the guess is wrong, and that they are not left out:"
        " `zip:category,age:number`; allowed are number, category and time",
    )
    id: str | None = Field(
        None, description="Column whose values are the ids of the records; else they are 0, 1, 2 …"
    )
    time: str | None = Field(
        None,
        description="Column of times: rows are sent in the order of the file, as far apart as their"
        " times are; `RATE` does not count then",
    )
    speed: float = Field(
        1, gt=0, allow_inf_nan=False, description="With `TIME`: how many times faster"
    )
    separator: Annotated[str, AfterValidator(_separator)] | None = Field(
        None,
        description="Separator of the file's cells: one character, or `tab`, `comma`, `semicolon`,"
        " `pipe`, `space`; found where none is given",
    )
    decimal: Annotated[str, AfterValidator(_decimal)] | None = Field(
        None, description="Decimal mark of the file's numbers; found where none is given"
    )
    encoding: Annotated[str, AfterValidator(_encoding)] | None = Field(
        None, description="Encoding of the file: utf-8 (where none is given), utf-16 or latin-1"
    )
    nulls: str | None = Field(
        None,
        description="Cells that stand for a missing value, separated by commas; empty ones always"
        " do. By default " + ", ".join(f"`{null}`" for null in NULLS),
    )
    rate: float = Field(
        100,
        ge=0,
        allow_inf_nan=False,
        description="Records a second; 0 is as fast as the broker takes them"
        " (`breast_cancer`: 20 where nothing is given)",
    )
    count: int = Field(
        0,
        ge=0,
        description="Records on the topic when it is done, ids 0 to COUNT − 1; 0 is endless",
    )
    seed: int = Field(1, description="Seed of everything random; the same seed, the same records")
    drift_every: int = Field(
        5000,
        ge=0,
        description="Records from one drift of a synthetic stream to the next; 0 is none",
    )
    repeat: bool = Field(
        False, description="1: a file or data set starts again after its end, in another order"
    )

    label_delay: LabelDelay | None = Field(
        None,
        description="How long after its record a label comes, on the label topic: seconds (`5`),"
        " `exponential:600` (random, that many seconds on average), or `records:1000`. Else the"
        " label is in the record",
    )
    label_time: str | None = Field(
        None,
        description="Column of the times at which labels come, as far after their records as this"
        " time is after that in `TIME`; where it is empty, no label comes",
    )
    label_share: float = Field(
        1.0, ge=0, le=1, description="Share of the records that ever get a label"
    )
    label_lags: LabelLags | None = Field(
        None,
        description="The labels of so many records before are features, too: `1,2,48` adds label_1,"
        " label_2 and label_48. Only where these labels are known by then; a file is sent in its"
        " order",
    )

    @model_validator(mode="after")
    def _the_time_of_a_label_is_told_once(self) -> Self:
        if self.label_time is not None and self.time is None:
            raise ValueError(
                f"LABEL_TIME={self.label_time}: it needs TIME, the column of the times of records"
            )
        if self.label_time is not None and self.label_delay is not None:
            raise ValueError(
                "LABEL_TIME and LABEL_DELAY both say when labels come; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _a_label_is_known_before_it_is_a_feature(self) -> Self:
        records, rate = float(self.delay_records), ""
        if self.delay_seconds and self.time is None:
            rate = f" and RATE={self.records_per_second:g}"
            records = (self.delay_seconds + CATCH_UP_SECONDS) * self.records_per_second
        if self.lags and self.lags[0] <= records:
            raise ValueError(
                f"LABEL_LAGS={self.lags[0]}: with LABEL_DELAY={self.label_delay}{rate}, a label may"
                f" come {records:g} records after its own; each lag has to be longer"
            )
        return self

    @property
    def lags(self) -> tuple[int, ...]:
        """How many records before are those whose labels are features; ascending."""
        return tuple(map(int, self.label_lags.split(","))) if self.label_lags else ()

    @property
    def delay(self) -> tuple[str, float]:
        """The kind of ``LABEL_DELAY``, empty where it is seconds, and its length."""
        kind, _, length = (self.label_delay or "0").rpartition(":")
        return kind, float(length)

    @property
    def delay_records(self) -> int:
        """After how many records a label is due; 0 where time decides."""
        kind, length = self.delay
        return int(length) if kind == "records" else 0

    @property
    def delay_seconds(self) -> float:
        """Seconds after its record that a label is due at the latest; 0 where records decide."""
        kind, length = self.delay
        return length * {"": 1, "exponential": LONGEST_RANDOM, "records": 0}[kind]

    @property
    def labels_come_later(self) -> bool:
        """Whether labels go to a topic of their own."""
        return self.label_delay is not None or self.label_time is not None

    @property
    def records_per_second(self) -> float:
        """The rate to send at: that of ``breast_cancer`` is lower unless ``RATE`` is given."""
        given = "rate" in self.model_fields_set
        return self.rate if given or self.stream != "breast_cancer" else BREAST_CANCER_RATE

    @property
    def rate_in_words(self) -> str:
        """How fast records are sent."""
        if self.time is not None:
            return f"that of {self.time}" + (f" x {self.speed:g}" if self.speed != 1 else "")
        return f"{self.records_per_second:g}/s" if self.records_per_second else "unlimited"

    @property
    def missing(self) -> tuple[str, ...]:
        """Cells that stand for a missing value, besides empty ones."""
        return tuple(names(self.nulls)) or NULLS

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that it has to do with."""
        topics = (self.data_topic, self.schema_topic)
        return (*topics, self.label_topic) if self.labels_come_later else topics
