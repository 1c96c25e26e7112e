"""Shows how the datagenerator understands a file: its columns, and all that is wrong with it.

No Kafka is needed, and no setting but those that say how to read the file.
"""

from __future__ import annotations

import sys

from datagenerator.columns import understand
from datagenerator.overview import described, numbered
from datagenerator.settings import Settings
from datagenerator.table import Table
from stream.arguments import argument_parser
from stream.command import command
from stream.service import Fatal


def main() -> int:
    """Show a file; return 1 if it cannot be sent as it is."""
    parser = argument_parser("python -m datagenerator.look", __doc__, Settings)
    parser.add_argument("file", help="a file, a folder, or a pattern of files in quotes")
    path = parser.parse_args().file

    def look(settings: Settings) -> int:
        table = Table(path, settings.separator, settings.encoding, settings.missing)
        found = understand(table, settings)
        print("\n".join(described(table, found)))
        if problems := found.wrong_settings + found.problems:
            raise Fatal(numbered(problems))
        return 0

    return command(Settings, look)


if __name__ == "__main__":
    sys.exit(main())
