"""Says whether the tests of web pages can run here."""

from __future__ import annotations

import shutil
import sys

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
"""Commands of browsers that the tests can use."""


def main() -> None:
    """End with an error that says why, if they cannot."""
    if not any(shutil.which(name) for name in BROWSERS):
        sys.exit(
            f"the pages cannot be tested: none of {', '.join(BROWSERS)} is installed (Debian: apt install chromium)"
        )


if __name__ == "__main__":
    main()
