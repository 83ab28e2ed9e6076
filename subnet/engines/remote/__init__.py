"""Shared parts of engines that forward requests to an inference server over HTTP."""
