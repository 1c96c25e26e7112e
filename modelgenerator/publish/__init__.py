"""Publishes a model that was trained anywhere, after the checks that a predictor makes.

From Python::

    from modelgenerator.publish import publish

    version = publish(model, threshold=0.3)

or from a file: ``python -m modelgenerator.publish model.joblib``.

The model is pinned: the modelgenerator publishes nothing after it until
``python -m modelgenerator.models unpin``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sklearn

from modelgenerator.envelope import highest_offsets
from modelgenerator.labelled import tables
from modelgenerator.publish.checks import prepared
from modelgenerator.publish.newest import read_stream
from modelgenerator.publisher import Publisher
from modelgenerator.settings import Settings
from modelgenerator.signing import own_key
from modelgenerator.verdicts import WAIT_SECONDS, await_verdict, unanswered
from stream import clients
from stream.service import Stop
from stream.settings import misspelt, read


def publish(
    model: Any,
    *,
    threshold: float | None = None,
    recipe: str = "by_hand",
    reason: str = "by hand",
    trained_on: int = 0,
    trained_to: Mapping[int, int] | Path | str | None = None,
    pin: bool = True,
    wait: float = WAIT_SECONDS,
    settings: Settings | None = None,
) -> int:
    """Check, sign and publish a fitted classifier.

    Parameters
    ----------
    model : object
        Any fitted scikit-learn classifier or pipeline with the classes 0 and 1 (or booleans). It
        takes the features of a record in the order of the stream.
    threshold : float, optional
        The label is 1 where the probability of label 1 is not below it, whatever the model's own
        `predict` says; without one, the label is what that says.
    recipe, reason : str
        What the model is called, and why it is published.
    trained_on : int
        Number of records that it was trained on, if that should be on record.
    trained_to : mapping of int to int, or path, optional
        Partition to the highest offset of the data topic that it was trained on, or a file of
        ``python -m modelgenerator.labelled``. Records up to there are predicted, but not counted.
    pin : bool
        Whether the modelgenerator publishes nothing after it until it is unpinned.
    wait : float
        Seconds to wait until a predictor says what it does with the model. If none does, a warning
        says so. With 0 nothing is waited for.
    settings : Settings, optional
        By default, read from the environment.

    Returns
    -------
    int
        The version.

    Raises
    ------
    ModelError
        When predictors would refuse the model; nothing is published then.
    NotServed
        When a predictor has refused or barred the model. It is published, but holds no pin.
    NotPublished
        When the brokers do not take it, for instance because it is larger than the topic allows.
    TableError
        When the file in `trained_to` cannot be read.
    Fatal
        When there is no trusted key to sign with, or a topic is missing.
    KafkaError
        When no broker answers.
    """
    said: list[str] = []
    if settings is None:
        settings = read(Settings)
        said += misspelt(Settings)
    if isinstance(trained_to, (str, Path)):
        highest = tables.trained_to(Path(trained_to))
    else:
        highest = highest_offsets((trained_to or {}).items())
    stop = Stop()
    key = own_key(settings, make=False)
    with clients.closing(clients.consumer(settings)) as consumer, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of feature names, which arrays do not have
        envelope, pickle, remarks = prepared(
            model,
            sklearn.__version__,
            read_stream(consumer, settings, stop),
            threshold=threshold,
            recipe=recipe,
            reason=reason,
            trained_on=trained_on,
            trained_to=highest,
            pinned=pin,
        )
        said += remarks
        version = Publisher(settings, key, stop, consumer).publish(envelope, pickle)
        if wait and not await_verdict(consumer, settings, version, wait):
            said.append(unanswered(version, wait))
    for line in said:
        warnings.warn(line, stacklevel=2)
    return version
