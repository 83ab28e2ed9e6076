"""Endpoints for operators and monitoring: health, metrics, nodes, models, and the home page."""
