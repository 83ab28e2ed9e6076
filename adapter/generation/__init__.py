"""Generation, independent of the API of the request: models, prompts, and answers as streams of events."""
