"""Tests with real inference servers, which run in a virtual environment of their own: `make test-engines`."""
