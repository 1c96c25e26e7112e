"""Makes digits.csv: ``python examples/make_example.py > examples/digits.csv``.

The 1,797 handwritten digits that scikit-learn ships (Optical Recognition of Handwritten Digits,
E. Alpaydin and C. Kaynak, UCI, 1998), each 8 × 8 pixels from 0 to 16. The label says whether the
digit is odd or even.
"""

from __future__ import annotations

import argparse
import csv
import sys
from typing import TextIO

from sklearn.datasets import load_digits

LABEL = "parity"


def write(file: TextIO) -> None:
    """Write the header and a row a digit."""
    pixels, digits = load_digits(return_X_y=True)
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow([f"pixel_{row}_{column}" for row in range(8) for column in range(8)] + [LABEL])
    for pixel, digit in zip(pixels.astype(int).tolist(), digits.tolist(), strict=True):
        rows.writerow([*pixel, "odd" if digit % 2 else "even"])


if __name__ == "__main__":
    argparse.ArgumentParser(usage=argparse.SUPPRESS, description=__doc__).parse_args()
    write(sys.stdout)
