"""Makes a deliberate fault in every Python process that has this folder on its ``PYTHONPATH``."""

from __future__ import annotations

import os
import sys

try:
    from tests.mutations import make

    make(os.environ["MUTATION"])
except Exception as error:  # noqa: BLE001 - Python would start without the fault
    sys.stderr.write(f"{error}\n")
    os._exit(1)
