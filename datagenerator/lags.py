"""The labels of earlier records as features, for streams where these are known in time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from datagenerator.late_labels import LateLabels
from datagenerator.rows import Source, Timed
from datagenerator.settings import Settings
from stream.records import ModelInput, Schema, Types
from stream.settings import SettingsError


class Lagged:
    """A source whose records have the labels of earlier ones as features, too.

    The order is that of the source, whatever partitions the records go to. Such a feature is
    missing where there are not so many records before, where that record never gets a label, and
    with ``TIME`` where its label has not come by the time of the record.

    Raises
    ------
    SettingsError
        When the source has a feature of the same name.
    """

    def __init__(self, source: Source, settings: Settings) -> None:
        self._source = source
        self._lags = settings.lags
        self._has_label = LateLabels(settings).has_label
        replayed = settings.time is not None and settings.delay_seconds > 0
        self._delay = settings.delay_seconds * settings.speed if replayed else -math.inf
        self._names = [f"label_{lag}" for lag in self._lags]
        for name in self._names:
            if name in source.schema.feature_names:
                raise SettingsError(
                    f"LABEL_LAGS: the file has a column '{name}' of its own; DROP={name} leaves it"
                    " out"
                )
        self.size, self.drift_every = source.size, source.drift_every
        self.longest_delay = source.longest_delay
        self.schema = self._described()

    def _described(self) -> Schema:
        inner = self._source.schema
        types: Types | None = inner.types and inner.types + ["number"] * len(self._lags)
        return replace(inner, feature_names=inner.feature_names + self._names, types=types)

    def as_recorded(self, schema: Schema) -> None:
        """Lay the records out as the schema on the topic says, if it has the same lags."""
        names, own = schema.feature_names, len(schema.feature_names) - len(self._lags)
        if names[own:] == self._names:
            types = schema.types and schema.types[:own]
            self._source.as_recorded(replace(schema, feature_names=names[:own], types=types))
            self.schema = self._described()

    def records(self, first_id: int) -> Iterator[Timed]:
        """Yield the records from number `first_id` on, after a look at those before."""
        longest = self._lags[-1]
        # A ring of the latest labels, and when they come.
        ring: list[tuple[int | None, float]] = [(None, 0.0)] * longest
        start = max(0, first_id - longest)
        for number, timed in enumerate(self._source.records(start), start):
            record = timed.record
            if number >= first_id:
                earlier = (ring[(number - lag) % longest] for lag in self._lags)
                known = [label if comes < timed.time else None for label, comes in earlier]
                lagged = ModelInput(record.id, [*record.features, *known], record.label)
                yield timed._replace(record=lagged)
            label = record.label if self._has_label(number) else None
            delay = self._delay if timed.label_delay is None else timed.label_delay
            ring[number % longest] = label, timed.time + delay
