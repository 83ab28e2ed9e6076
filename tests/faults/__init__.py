"""The fault laboratory: real nodes and gateways, broken in every way, watched from the client's side."""
