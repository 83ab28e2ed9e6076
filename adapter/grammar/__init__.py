"""Grammars that an engine must follow, from the tools and the output format of a request."""
