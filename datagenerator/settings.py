"""Settings of the datagenerator."""

from __future__ import annotations

from pydantic import Field

from stream.settings import StreamSettings

BREAST_CANCER_RATE = 20.0
"""Its 569 records last half a minute at 20/s: slow enough to watch."""


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

    @property
    def records_per_second(self) -> float:
        """The rate to send at: that of ``breast_cancer`` is lower unless ``RATE`` is given."""
        given = "rate" in self.model_fields_set
        return self.rate if given or self.stream != "breast_cancer" else BREAST_CANCER_RATE

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that it has to do with."""
        return self.data_topic, self.schema_topic
