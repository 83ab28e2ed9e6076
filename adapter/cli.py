"""The `adapter` command, before anything that takes time."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; Ctrl-C, or SIGTERM, at any moment is an end without a traceback."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # The imports take half a second, in which someone may well change their mind.
        from adapter.running.commandline import main as run

        run(arguments)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
