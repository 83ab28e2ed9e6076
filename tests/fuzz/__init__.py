"""Fuzzing of what decodes the bytes of clients, nodes, upstream servers and model files."""
