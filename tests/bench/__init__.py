"""What the gateway costs: `python -m tests.bench` starts what it needs, runs a table of rows and prints it."""
