"""Conversations, as all dialects of the API that have messages share them; each translates its own into these."""
