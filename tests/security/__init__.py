"""Attacks by clients, nodes and upstream servers on real processes, and fuzzing of what decodes their bytes."""
