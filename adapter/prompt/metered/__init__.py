"""Jinja templates that spend a budget, so that they end in bounded time and memory whatever they compute.

Everything that a template can do is counted, or cannot be done: the code generator counts statements and operators, and
filters, tests, methods and functions are in tables of those whose cost is known.
"""
