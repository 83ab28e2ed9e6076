"""Detection of inference servers: what runs at an address, and which protocol to use for it."""
