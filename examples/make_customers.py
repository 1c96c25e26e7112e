"""Makes a table of customers: ``python examples/make_customers.py > customers.csv``.

It has every kind of column, and gaps. From its middle on, other customers leave than before. The
rows are the same in each format:

csv      with semicolons, decimal commas and dates of Europe
parquet  as a data warehouse has them
jsonl    records for the data topic, as a producer sends them: features by name, without the
         columns that are no features
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import duckdb

ROWS = 5_000

CITIES = (
    "Berlin Hamburg München Köln Frankfurt Wien Zürich Paris Lyon Madrid Porto Milano Torino Praha"
    " Brno Łódź Kraków Gdańsk Göteborg Malmö Oslo Århus Tampere Rīga Tallinn Gent Liège Utrecht"
    " Breda Αθήνα Sofia Cluj Iași Szeged Graz Linz Basel Bern Nice Brest"
)
"""Forty, from the commonest to the rarest."""

SCHEMA = {
    "feature_names": ["age", "balance", "plan", "city", "active", "since", "zip", "calls"],
    "types": ["number", "number", "category", "category", "number", "time", "category", "number"],
    "label": "churned",
    "positive": "yes",
    "negative": "no",
}
"""The record for the schema topic; true and false are numbers."""


class Customer(NamedTuple):
    """A row; ``churned`` follows from the others."""

    customer: str
    billed: datetime
    age: int | None
    balance: float | None
    plan: str
    city: str | None
    active: bool
    since: date
    zip: str
    calls: int
    country: str
    churned: str


def customers(rows: int = ROWS, seed: int = 1) -> Iterator[Customer]:
    """Yield customers in the order in which they are billed; the same seed, the same customers."""
    draw = random.Random(seed)
    cities = CITIES.split()
    common = [1 / rank for rank in range(1, len(cities) + 1)]
    tempted = [draw.gauss(1, 1) for _ in cities]
    for number in range(rows):
        age, balance = draw.randint(18, 90), round(draw.gauss(1_500, 1_200), 2)
        plan, calls = draw.choice(["free", "basic", "pro"]), min(9, int(draw.expovariate(0.5)))
        active, days = draw.random() < 0.7, draw.randrange(3_000)
        (city,) = draw.choices(range(len(cities)), common)
        risk = 0.5 * calls - balance / 1_000 - 1.5 * active + (plan == "free") + tempted[city]
        if number >= rows // 2:  # drift: now the young and the new leave, and from other cities
            risk = (45 - age) / 12 + (1_500 - days) / 800 - 2 * (plan == "pro") + 2 - tempted[city]
        yield Customer(
            f"C{draw.randrange(10**6):06d}-{number}",
            datetime(2026, 1, 1) + timedelta(minutes=number),
            age if draw.random() > 0.05 else None,
            balance if draw.random() > 0.02 else None,
            plan,
            cities[city] if draw.random() > 0.03 else None,
            active,
            date(2018, 1, 1) + timedelta(days),
            f"{city:02d}{draw.randrange(5):03d}",
            calls,
            "EU",
            "yes" if risk + draw.gauss(0, 0.5) > 0 else "no",
        )


def as_csv() -> bytes:
    """Return the customers as a spreadsheet of Europe has them."""
    file = io.StringIO()
    rows = csv.writer(file, delimiter=";", lineterminator="\n")
    rows.writerow(Customer._fields)
    for customer in customers():
        balance = "" if customer.balance is None else f"{customer.balance:.2f}".replace(".", ",")
        dates = {
            "billed": f"{customer.billed:%d.%m.%Y %H:%M}",
            "since": f"{customer.since:%d.%m.%Y}",
        }
        rows.writerow((customer._asdict() | dates | {"balance": balance}).values())
    return file.getvalue().encode()


def as_parquet() -> bytes:
    """Return the customers with the types that their values have."""
    names = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN", date: "DATE"}
    values = [type(value) for value in next(customers())]
    with tempfile.TemporaryDirectory() as folder:
        lines, table = Path(folder, "lines"), Path(folder, "table")
        rows = (json.dumps(customer._asdict(), default=str) for customer in customers())
        lines.write_text("\n".join(rows))
        columns = {
            name: names.get(value, "TIMESTAMP")
            for name, value in zip(Customer._fields, values, strict=True)
        }
        read = f"read_json('{lines}', columns={columns})"
        duckdb.execute(f"COPY (FROM {read}) TO '{table}' (FORMAT parquet)")
        return table.read_bytes()


def as_jsonl() -> bytes:
    """Return the customers as records, one a line; what is missing is left out."""
    records = []
    for customer in customers():
        given = customer._asdict() | {"since": customer.since.isoformat()}
        features = {
            name: given[name] for name in SCHEMA["feature_names"] if given[name] is not None
        }
        record = {"id": customer.customer, "features": features, "label": customer.churned}
        records.append(json.dumps(record, ensure_ascii=False) + "\n")
    return "".join(records).encode()


FORMATS = {"csv": as_csv, "parquet": as_parquet, "jsonl": as_jsonl}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--format", choices=FORMATS, default="csv")
    sys.stdout.buffer.write(FORMATS[parser.parse_args().format]())
