"""Code that the endpoints share: request pipeline, reading and validation, responses, access log."""
