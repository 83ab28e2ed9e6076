"""Attacks: what a stranger, a hostile node or a hostile client tries, each beside somebody who must not notice."""
