"""Text to tokens and back, and the formats of conversations; knows no model and no torch."""
