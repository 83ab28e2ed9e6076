"""Versions of servers, such as "0.10.2"."""

from __future__ import annotations

import re

Version = tuple[int, ...]

_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?!\.?dev)")


def parse_version(text: str) -> Version | None:
    """Parse a version such as "0.10.2". Return None for a development build, which may have any features."""
    match = _VERSION.match(text)
    return tuple(int(part or 0) for part in match.groups()) if match else None
