"""Where the process starts, so small that it can be told to leave from its first moment, and where it ends."""

import os
import signal
import sys
from pkgutil import resolve_name


def main() -> None:
    """Run the command line; `stitchserve serve` leaves at once, told to while it loads or done, with 0."""
    serving = sys.argv[1:2] == ["serve"]
    if serving:
        # The first process of a container ignores SIGTERM until it is handled, which the server does once it listens.
        signal.signal(signal.SIGTERM, _leave)
    try:
        resolve_name("server.cli:main")()  # by name: its imports take a good part of a second
    except KeyboardInterrupt:
        sys.exit(130)
    if serving:
        sys.stdout.flush()
        _leave()


def _leave(*_: object) -> None:
    # No exception: what is being loaded would have to let it through, and not all native modules do. No teardown: that
    # of torch takes most of a second of processor time, on a busy machine all that a container has until it is killed.
    os._exit(0)


if __name__ == "__main__":
    main()
