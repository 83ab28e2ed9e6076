"""Tests; a package, so that they can share fakes.py."""
