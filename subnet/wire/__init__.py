"""Wire protocol between gateways and nodes: messages, frames, columns and tensors."""
