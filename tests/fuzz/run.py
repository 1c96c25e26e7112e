"""Fuzz one decoder with libFuzzer; `tests.fuzz` runs this once for each of them."""

from __future__ import annotations

import sys

from stream.arguments import argument_parser


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    parser = argument_parser("python -m tests.fuzz.run", __doc__)
    parser.add_argument("target", help="a name in tests/fuzz/targets.py")
    parser.add_argument("libfuzzer", nargs="*", help="options of libFuzzer and folders, behind --")
    options = parser.parse_args()
    import atheris  # only `make fuzz` installs it

    with atheris.instrument_imports(include=["stream", "predictor", "modelgenerator"]):
        from tests.fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *options.libfuzzer], TARGETS[options.target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
