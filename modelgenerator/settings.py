"""Settings of the modelgenerator."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from stream.settings import ModelLimits


class Settings(ModelLimits):
    """What signs the models, how many records they learn from, and how often they are renewed."""

    signing_key: Path = Field(
        Path("keys/private/modelgenerator.pem"),
        description="Private key that signs models, PEM file; made on the first start",
    )
    trusted_keys: Path = Field(
        Path("keys/trusted"), description="Folder that the public key is shared into"
    )
    retrain_every: int = Field(
        1000, ge=100, description="Labelled records between two models, at most"
    )
    window: int = Field(
        2000, ge=200, le=1_000_000, description="Labelled records that a model is trained on"
    )

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that it has to do with."""
        return (
            self.data_topic,
            self.schema_topic,
            self.model_topic,
            self.status_topic,
            self.label_topic,
        )
