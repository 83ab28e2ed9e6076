"""An engine without a model: paced, free of weights, and as deterministic as a real one. For tests and benchmarks.

It babbles common words and characters of several bytes. The next token depends on all tokens before it, as with a
model, and, when temperature is above 0, on a draw by (seed, choice, position). So greedy answers can be continued
from their tokens alone, seeded ones only by an engine that knows the position, penalised ones only by one that knows
which tokens are output; and any token lost, doubled or invented on the way changes everything after it.
"""

from subnet.engines.echo.echo_engine import EchoEngine, EchoOptions
from subnet.engines.echo.vocabulary import PIECES

__all__ = ["PIECES", "EchoEngine", "EchoOptions"]
