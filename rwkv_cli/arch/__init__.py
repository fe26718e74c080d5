"""What RWKV is: a file a version, and how a checkpoint's version is told."""
