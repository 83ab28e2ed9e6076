"""The wire between gateway and node: messages, frames, columns, tensors."""
