"""Lists the keys that models are signed with and trusted by, and makes new ones.

``python -m modelgenerator.keys`` lists, ``python -m modelgenerator.keys make PATH`` makes a pair.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from modelgenerator.settings import Settings
from stream.keys import KeyFileError, fingerprint, public_keys, signing_key
from stream.settings import SettingsError, read


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m modelgenerator.keys", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("list", help="list the keys in SIGNING_KEY and TRUSTED_KEYS (default)")
    make = commands.add_parser("make", help="make a private key, and share its public half")
    make.add_argument("path", type=Path, help="private key to make, PEM file")
    make.add_argument("--trust", type=Path, metavar="FOLDER", help="folder to share it into")
    found = parser.parse_args(arguments)
    try:
        if found.command == "make":
            _make(found.path, found.trust)
        else:
            _list(read(Settings))
    except (KeyFileError, SettingsError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _make(path: Path, folder: Path | None) -> None:
    if path.exists():
        raise KeyFileError(f"{path}: exists already; a key is never overwritten")
    key = signing_key(path)
    print(f"signing {key.fingerprint} {path}")
    if folder:
        print(f"trusted {key.fingerprint} {key.share(folder)}")


def _list(settings: Settings) -> None:
    path = settings.signing_key
    print(f"signing {signing_key(path).fingerprint if path.exists() else 'not made yet'} {path}")
    for trusted, key in public_keys(settings.trusted_keys).items():
        print(f"trusted {fingerprint(key)} {trusted}")


if __name__ == "__main__":
    sys.exit(main())
