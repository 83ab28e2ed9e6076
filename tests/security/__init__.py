"""Clients that take more than their share: the gateway stays within its limits, and other clients notice nothing."""
