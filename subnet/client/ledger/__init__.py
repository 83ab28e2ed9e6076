"""What a session has been promised and given."""
