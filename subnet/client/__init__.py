"""Sessions: generations that survive the failure of their nodes."""
