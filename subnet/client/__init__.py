"""The client side of the subnet: sessions over a live table of nodes."""
