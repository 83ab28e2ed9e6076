"""The recording at the top of the README: a node is killed in the middle of an answer."""
