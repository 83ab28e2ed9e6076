"""The gateway as processes: commands, servers, workers, local nodes."""
