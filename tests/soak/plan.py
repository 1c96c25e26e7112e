"""What goes wrong in a soak, in which order: a function of the seed alone."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import NamedTuple

REPLICAS = ("a", "b", "c")
SPARED = "a"
"""Never killed and never stopped, so that it lives long enough to show a memory leak."""


class Fault(NamedTuple):
    """Something that goes wrong.

    Attributes
    ----------
    what : str
        Its row in the table of recovery times.
    who : tuple of str
        The processes it strikes.
    seconds : float
        How long it lasts, where it lasts.
    quiet : float
        Seconds without a fault before it.
    """

    what: str
    who: tuple[str, ...]
    seconds: float
    quiet: float

    @property
    def asleep(self) -> bool:
        """Whether it leaves processes asleep that have to be woken."""
        return self.what.endswith("paused") and bool(self.who)

    def __str__(self) -> str:
        lasts = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.what}{': ' if self.who else ''}{', '.join(self.who)}{lasts}"


def plan(seed: int) -> Iterator[Fault]:
    """Yield faults without an end, in rounds that hold each kind once."""
    rng = random.Random(seed)
    others = [f"predictor {name}" for name in REPLICAS if name != SPARED]

    def fault(what: str, *who: str, seconds: tuple[float, float] = (0, 0)) -> Fault:
        return Fault(what, who, round(rng.uniform(*seconds), 1), round(rng.uniform(0.5, 4), 1))

    for number in itertools.count():
        leaving = rng.choice([others, others[:1], others[1:]])
        anyone = f"predictor {rng.choice(REPLICAS)}"
        deck = [
            [fault("predictor killed", rng.choice(others))],
            [fault("two predictors killed", *others)],
            [fault("predictor paused", anyone, seconds=(1, 15))],
            [fault("predictor leaves", *leaving), fault("predictor joins", *leaving)],
            [fault("broker stopped", seconds=(0, 8))],
            [fault("broker killed", seconds=(0, 8))],
            [fault("broker paused", seconds=(1, 12))],
            [fault("broker and predictor killed", rng.choice(others), seconds=(0, 3))],
            [fault("poison records")],
            [fault("models not to be trusted")],
            [fault("model that raises")],
        ]
        for service in ("datagenerator", "modelgenerator"):
            if number % 2:  # killed only in every other round, so that some live long
                deck.append([fault(f"{service} paused", service, seconds=(1, 12))])
            else:
                deck.append([fault(f"{service} killed", service)])
        rng.shuffle(deck)
        yield from itertools.chain.from_iterable(deck)
