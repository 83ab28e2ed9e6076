"""What every endpoint shares: the pipeline, reading and validating requests, responses and their accounting."""
