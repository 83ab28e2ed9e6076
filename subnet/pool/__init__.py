"""The pool of nodes: node table, health checks, circuit breakers, leases, wait queue and routing policies."""
