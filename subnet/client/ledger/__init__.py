"""Record of what a session has delivered to its client."""
