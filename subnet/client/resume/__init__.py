"""How an interrupted answer is resumed on another node."""
