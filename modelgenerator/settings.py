"""Settings of the modelgenerator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from modelgenerator.training.gate import Gate
from stream.settings import ModelLimits


def _gate(text: str) -> str:
    Gate.parse(text)
    return text


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
        100, ge=100, description="Labelled records between two models, at most"
    )
    window: int = Field(
        20_000, ge=200, le=1_000_000, description="Labelled records that are kept to train on"
    )
    gate: Annotated[str, AfterValidator(_gate)] = Field(
        "accuracy",
        description="What makes a recipe better: `accuracy`, `balanced_accuracy`, `log_loss`, or"
        " `cost:FP,FN` with what a wrong 1 and a wrong 0 cost",
    )
    archive: bool = Field(
        True, description="Whether models of former concepts may come back: `true` or `false`"
    )
    recipes: str | None = Field(
        None, description="A table of recipes of your own, `package.module:name`"
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
