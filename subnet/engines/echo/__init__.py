"""Echo engine: a deterministic engine without a model, for tests and benchmarks.

It generates common words and multi-byte characters. As with a real model, the next token depends on all tokens before
it, and, with a temperature above 0, on a draw by (seed, choice, position). So a greedy answer can be continued from its
tokens alone, a seeded one only by an engine that knows the position, and a penalised one only by an engine that knows
which tokens are output. Any token lost, repeated or invented changes everything after it.
"""

from subnet.engines.echo.echo_engine import EchoEngine, EchoOptions
from subnet.engines.echo.echo_vocabulary import PIECES

__all__ = ["PIECES", "EchoEngine", "EchoOptions"]
