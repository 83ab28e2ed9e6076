"""The live table of nodes: health checks, circuit breakers, leases, routing policies, the queue."""
