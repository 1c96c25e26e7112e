"""Fuzzes every decoder that reads a topic: ``make fuzz SECONDS=600``.

The seconds are for all targets together. What was found interesting is kept in ``.fuzz/``, and the
next run goes on from there. A finding is a file beside it, and the exit status is 1.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from stream.arguments import argument_parser
from tests.fuzz.targets import TARGETS, seeds
from tests.services import ROOT

FOLDER = ROOT / ".fuzz"
SLOWEST_SECONDS = 10
"""Longest that a decoder may take for one input of at most `LONGEST_BYTES`."""

LONGEST_BYTES = 20_000
MEGABYTES = 1_024


def fuzz(name: str, seconds: int) -> bool:
    """Fuzz one target, say in a line how it went, and return whether nothing was found."""
    corpus, findings = FOLDER / name.replace(" ", "-"), FOLDER / "findings"
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = {
        "max_total_time": seconds,
        "max_len": LONGEST_BYTES,
        "timeout": SLOWEST_SECONDS,
        "rss_limit_mb": MEGABYTES,
        "artifact_prefix": f"{findings}/{corpus.name}-",
        "print_final_stats": 1,
    }
    arguments = [f"-{option}={value}" for option, value in options.items()]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", name, "--", *arguments, str(corpus)],
        capture_output=True,
        text=True,
        errors="replace",
        cwd=ROOT,
        check=False,
    )
    log = FOLDER / f"{corpus.name}.log"
    log.write_text(ended.stdout + ended.stderr)
    runs = ended.stderr.rpartition("number_of_executed_units:")[2].split("\n")[0].strip()
    found = "nothing found" if ended.returncode == 0 else f"FOUND, see {log}"
    print(f"{name:<14} {runs or '?':>10} inputs in {seconds} s: {found}", flush=True)
    return ended.returncode == 0


def main() -> int:
    """Fuzz all targets, as many at a time as there are cores; return the exit status."""
    argument_parser("python -m tests.fuzz", __doc__).parse_args()
    cores = min(len(TARGETS), os.cpu_count() or 1)
    seconds = max(5, int(os.environ.get("SECONDS", "600")) * cores // len(TARGETS))
    with ThreadPoolExecutor(cores) as pool:
        sound = list(pool.map(lambda name: fuzz(name, seconds), TARGETS))
    print(f"fuzzed {len(sound)} decoders: {sound.count(False)} with findings")
    return 0 if all(sound) else 1


if __name__ == "__main__":
    sys.exit(main())
