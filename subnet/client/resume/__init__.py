"""Strategies to resume an interrupted answer on another node."""
