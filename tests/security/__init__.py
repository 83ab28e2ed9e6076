"""Tests that play a hostile client, node or upstream server."""
