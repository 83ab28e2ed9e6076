"""Inference servers that run elsewhere, as nodes: what stands at an address, and how it is reached."""
