"""HTTP and ASGI: what lies between a socket and an endpoint."""
