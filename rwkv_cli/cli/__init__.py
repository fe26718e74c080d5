"""The commands: flags in, one call, exit code out."""
