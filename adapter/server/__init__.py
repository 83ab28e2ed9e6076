"""HTTP server: everything between a socket and an ASGI application."""
