"""One attempt of a session on one node."""
