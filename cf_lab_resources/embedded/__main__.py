"""`python -m cf_lab_resources.embedded <service> <home>`: starts a service's supervisor."""

from __future__ import annotations

import sys
from pathlib import Path

from cf_lab_resources.embedded.errors import EmbeddedError
from cf_lab_resources.embedded.servers import SERVERS
from cf_lab_resources.embedded.supervisor import launch
from cf_lab_resources.settings import Settings


def main(arguments: list[str]) -> int:
    """Launches the supervisor of one service in one home; used by `running`, not by people."""
    if len(arguments) != 2 or arguments[0] not in SERVERS:
        print(f"usage: python -m cf_lab_resources.embedded {{{'|'.join(SERVERS)}}} HOME")
        return 2
    try:
        return launch(arguments[0], Settings(home=Path(arguments[1])))
    except EmbeddedError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
