"""Settings of the datagenerator."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from stream.settings import StreamSettings

BREAST_CANCER_RATE = 20.0
"""Its 569 records last half a minute at 20/s: slow enough to watch."""

LABEL_DELAY_RECORDS = 1_000_000


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


class Settings(StreamSettings):
    """What is sent, how fast, and how much of it."""

    stream: str = Field(
        "sea",
        description="`sea`, `agrawal`, `hyperplane`, `random_rbf` (synthetic, with drift),"
        " `breast_cancer` (569 real records), or the path of a CSV file",
    )
    label: str | None = Field(None, description="Column of the file that holds the label")
    positive: str | None = Field(
        None, description="Value of the label that means 1; not needed where the values are 0 and 1"
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
    label_share: float = Field(
        1.0, ge=0, le=1, description="Share of the records that ever get a label"
    )

    @property
    def records_per_second(self) -> float:
        """The rate to send at: that of ``breast_cancer`` is lower unless ``RATE`` is given."""
        given = "rate" in self.model_fields_set
        return self.rate if given or self.stream != "breast_cancer" else BREAST_CANCER_RATE

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that it has to do with."""
        topics = (self.data_topic, self.schema_topic)
        return (*topics, self.label_topic) if self.label_delay else topics
