"""Makes a table of customers: ``python examples/make_customers.py > customers.csv``.

It has every kind of column, gaps, semicolons and decimal commas. In its second half, other
customers leave than in the first.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from typing import IO, NamedTuple

ROWS = 5_000


class Customer(NamedTuple):
    """A row; ``churned`` follows from the others."""

    customer_id: str
    name: str
    age: int | None
    balance: float | None
    plan: str
    calls: int
    active: bool
    since: date
    country: str
    churned: str


def customers(rows: int = ROWS, seed: int = 1) -> Iterator[Customer]:
    """Yield customers; the same seed, the same customers."""
    draw = random.Random(seed)
    for number in range(rows):
        age, balance = draw.randint(18, 90), round(draw.gauss(1_500, 1_200), 2)
        plan, calls = draw.choice(["free", "basic", "pro"]), min(9, int(draw.expovariate(0.5)))
        active, days = draw.random() < 0.7, draw.randrange(3_000)
        risk = 0.5 * calls - balance / 1_000 - 1.5 * active + (plan == "free")
        if number >= rows // 2:  # drift: now the young and the new ones leave
            risk = (45 - age) / 12 + (1_000 - days) / 1_500 - (plan == "pro")
        yield Customer(
            f"C{draw.randrange(10**9):09d}-{number}",
            f"{draw.choice(['Ana', 'Bo', 'Chi', 'Dev'])} {draw.choice(['Abe', 'Bauer', 'Cruz'])}",
            age if draw.random() > 0.05 else None,
            balance if draw.random() > 0.02 else None,
            *(plan, calls, active, date(2018, 1, 1) + timedelta(days), "DE"),
            "yes" if risk + draw.gauss(0, 0.5) > 0 else "no",
        )


def write(file: IO[str]) -> None:
    """Write the customers as a spreadsheet of Europe would."""
    rows = csv.writer(file, delimiter=";", lineterminator="\n")
    rows.writerow(Customer._fields)
    for customer in customers():
        balance = "" if customer.balance is None else f"{customer.balance:.2f}".replace(".", ",")
        cells = customer._asdict() | {"balance": balance, "since": f"{customer.since:%d.%m.%Y}"}
        rows.writerow(cells.values())


if __name__ == "__main__":
    argparse.ArgumentParser(usage=argparse.SUPPRESS, description=__doc__).parse_args()
    write(sys.stdout)
