"""Benchmark of the gateway: `python -m tests.bench` starts the programs, measures the rows of a table and prints it."""
