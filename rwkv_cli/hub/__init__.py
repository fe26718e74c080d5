"""What people call a model, where its file is, and how it gets here."""
