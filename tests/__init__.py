"""Tests. A package, so that they can share modules such as fakes.py."""
