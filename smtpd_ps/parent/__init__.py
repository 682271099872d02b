"""The root process: configuration, spawning, and a handful of run-time requests."""
