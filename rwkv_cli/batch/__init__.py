"""Many rows, one command: reading them, asking a model, and keeping what it answered."""
