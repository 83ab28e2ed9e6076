"""Telling clients apart: by API key, or by address where there is none."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address

# Providers assign at least this many bits of an address to each line.
_IPV6_PREFIX = 64


@lru_cache(maxsize=4096)
def client_at(address: str) -> str | None:
    """Return the name of the client at an IP address; None for one on this machine, which may be a proxy that passes on
    the requests of many, and for what is not an address.

    All addresses of an IPv6 network of 64 bits are one client, as everyone has as many of them as they like.
    """
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        found = found.ipv4_mapped or found
    if found.is_loopback:
        return None
    if isinstance(found, IPv6Address):
        return f"{IPv6Address(int(found) >> (128 - _IPV6_PREFIX) << (128 - _IPV6_PREFIX))}/{_IPV6_PREFIX}"
    return str(found)
