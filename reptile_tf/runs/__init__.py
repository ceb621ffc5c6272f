"""Training runs, from a configuration to result.json."""
