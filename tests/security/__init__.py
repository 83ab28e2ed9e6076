"""Attacks by clients, nodes and upstream servers, beside somebody who must not notice, and fuzzing of decoders."""
