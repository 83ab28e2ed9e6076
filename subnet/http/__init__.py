"""The HTTP client for upstream servers: credentials, bodies, errors."""
