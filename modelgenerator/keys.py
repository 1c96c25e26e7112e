"""The keys that models are signed with (SIGNING_KEY) and trusted by (TRUSTED_KEYS).

``list`` shows them, ``make`` makes a pair, ``trust`` and ``revoke`` say whose models are loaded.

Exit status: 0 when it is done, 1 when it cannot be done, or a trusted file is no key, 2 for a wrong
setting or option.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from modelgenerator.settings import Settings
from stream.arguments import argument_parser
from stream.command import command
from stream.key_files import KeyFileError
from stream.keys import (
    fingerprint,
    public_key,
    public_keys,
    revoke,
    signing_key,
    trust,
)
from stream.quoting import one_line
from stream.service import Fatal


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argument_parser("python -m modelgenerator.keys", __doc__, Settings)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("list", help="list the keys in SIGNING_KEY and TRUSTED_KEYS (default)")
    make = commands.add_parser("make", help="make a private key, and share its public half")
    make.add_argument("path", type=Path, help="private key to make, PEM file")
    make.add_argument("--trust", type=Path, metavar="FOLDER", help="folder to share it into")
    show = commands.add_parser("fingerprint", help="print the fingerprint of a public key")
    show.add_argument("path", type=Path, help="public key, PEM file")
    add = commands.add_parser("trust", help="put a public key into TRUSTED_KEYS")
    add.add_argument("path", type=Path, help="public key, PEM file")
    remove = commands.add_parser("revoke", help="take a key out of TRUSTED_KEYS, for good")
    remove.add_argument("fingerprint", help="16 hexadecimal digits, as `list` shows them")
    return command(Settings, partial(_run, parser.parse_args(arguments)))


def _run(options: argparse.Namespace, settings: Settings) -> int:
    try:
        if options.command == "make":
            _make(options.path, options.trust)
        elif options.command == "fingerprint":
            print(fingerprint(public_key(options.path)))
        elif options.command == "trust":
            key = public_key(options.path)
            print(f"trusted {fingerprint(key)} {trust(key, settings.trusted_keys)}")
        elif options.command == "revoke":
            mark = revoke(options.fingerprint, settings.trusted_keys)
            print(f"revoked {options.fingerprint} {mark}")
        else:
            return _list(settings)
    except KeyFileError as error:
        raise Fatal(str(error)) from None
    return 0


def _make(path: Path, folder: Path | None) -> None:
    if path.exists():
        raise KeyFileError(f"{path}: exists already; a key is never overwritten")
    key = signing_key(path)
    print(f"signing {key.fingerprint} {path}")
    if folder:
        print(f"trusted {key.fingerprint} {key.share(folder)}")


def _list(settings: Settings) -> int:
    path = settings.signing_key
    print(f"signing {signing_key(path).fingerprint if path.exists() else 'not made yet'} {path}")
    keys, problems = public_keys(settings.trusted_keys)
    for trusted, key in keys.items():
        print(one_line(f"trusted {fingerprint(key)} {trusted}"))
    for revoked in sorted(settings.trusted_keys.glob("*.revoked")):
        print(one_line(f"revoked {revoked.stem} {revoked}"))
    for problem in problems:
        print(one_line(problem), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
