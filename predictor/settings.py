"""Settings of the predictor."""

from __future__ import annotations

import socket
from pathlib import Path

from pydantic import Field, field_validator

from stream.settings import ModelLimits, Name


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
