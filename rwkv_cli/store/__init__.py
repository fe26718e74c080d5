"""What is kept on the disk: conversations, their states, prompts that were read, named states.

Small immutable files are the truth, and no lock is needed to read or write them (see `chatlog`).
"""
