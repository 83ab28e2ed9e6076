"""Gateway processes: commands, servers, workers and local nodes."""
