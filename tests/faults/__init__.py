"""Fault laboratory: real nodes and gateways, broken in every way, and observed as a client does."""
