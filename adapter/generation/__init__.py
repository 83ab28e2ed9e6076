"""What a request becomes, whichever API it came by: a prompt, a generation, a stream of events."""
