"""Settings of the predictor."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from stream.settings import ModelLimits, Name

LABEL_WAIT_MOST = 5_000_000
LABEL_WAIT_MOST_WITH_SECONDS = 1_000_000


def _label_wait(text: str) -> str:
    match = re.fullmatch(r"(seconds:)?([0-9]{1,12})", text)
    if not match or not int(match[2]) or (not match[1] and int(match[2]) > LABEL_WAIT_MOST):
        raise ValueError(
            f"allowed is a whole number of predictions, 1 to {LABEL_WAIT_MOST}, or a time like"
            " seconds:3600"
        )
    return text


LabelWait = Annotated[str, AfterValidator(_label_wait)]
"""How long predictions wait for their labels, as people write it."""


class PredictorSettings(ModelLimits):
    """What the predictor reads from the environment besides what all services read."""

    group_id: Name = Field("predictor", description="Consumer group")
    replica: Name = Field(
        default_factory=socket.gethostname,
        description="Name of this predictor, its own within the group; the host name by default",
    )
    commit_interval_ms: int = Field(
        100, ge=1, le=5_000, description="Longest that a unit of work collects records, in ms"
    )
    model_predict_seconds: float = Field(
        60.0,
        gt=0,
        le=240,
        description="Longest that a model may take to predict a unit, in seconds, or it is barred",
    )
    label_wait: LabelWait = Field(
        "200000",
        description="How long predictions wait for their labels: the newest so many of a partition"
        " (up to 5,000,000), or for `seconds:3600` those of the last hour (and no more than the"
        " newest 1,000,000)",
    )
    label_assume: Literal["0"] | None = Field(
        None,
        description="0: a prediction whose label does not come within LABEL_WAIT is published with"
        " an assumed label 0; it is counted apart",
    )
    label_early_seconds: float = Field(
        10.0,
        ge=0,
        le=3_600,
        description="How long a label waits for its record, from when the end of the data was"
        " reached, in seconds; then it is rejected",
    )
    trusted_keys: Path = Field(
        Path("keys/trusted"), description="Folder of public keys whose models are served"
    )
    allow_unsigned_models: bool = Field(
        False, description="Serve models without a trusted signature; for experiments only"
    )
    log_file: Path = Field(
        Path("predictor.log"), description="File of the accuracy at every 10th counted prediction"
    )
    log_max_bytes: int = Field(
        10 * 2**20,
        ge=1_000,
        description="Size at which the log file is rotated, in bytes; 3 older files stay",
    )
    log_backfill: int = Field(
        100_000, ge=0, description="Predictions that an empty log file is filled in from at most"
    )

    @field_validator("log_file")
    @classmethod
    def _can_be_read_back(cls, path: Path) -> Path:
        if path.exists() and not path.is_file():
            raise ValueError(
                "it is no regular file; a file is needed, because its lines are read back at each"
                " start, and rotated"
            )
        return path

    @property
    def label_wait_records(self) -> int:
        """Most predictions of a partition that wait for their labels, or stay known with them."""
        if self.label_wait.startswith("seconds:"):
            return LABEL_WAIT_MOST_WITH_SECONDS
        return int(self.label_wait)

    @property
    def label_wait_seconds(self) -> float | None:
        """How old the record of a waiting prediction may be; ``None`` for any age."""
        kind, _, seconds = self.label_wait.partition(":")
        return float(seconds) if kind == "seconds" else None
