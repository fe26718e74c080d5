"""Many generations at once: reading prompts and decoding share every pass over the weights."""
