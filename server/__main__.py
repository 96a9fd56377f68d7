"""Where the process starts, so small that it can be told to leave from its first moment."""

import os
import signal
import sys
from pkgutil import resolve_name


def main() -> None:
    """Run the command line; `stitchserve serve` leaves with 0 when told to while it still loads."""
    if sys.argv[1:2] == ["serve"]:
        # The first process of a container ignores SIGTERM until it is handled, which the server does once it listens.
        signal.signal(signal.SIGTERM, _leave)
    resolve_name("server.cli:main")()  # by name: its imports take a good part of a second


def _leave(*_: object) -> None:
    os._exit(0)  # an exception would pass through whatever is loading, and native modules make of it what they like


if __name__ == "__main__":
    main()
