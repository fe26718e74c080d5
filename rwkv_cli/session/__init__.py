"""Conversations: a tree of turns with a model, any of which can be returned to. Knows no files and
no screen.
"""

from rwkv_cli.session.conversation import Conversation, Manner, now
from rwkv_cli.session.log import Log, MemoryLog
from rwkv_cli.session.reply import Reply

__all__ = ["Conversation", "Log", "Manner", "MemoryLog", "Reply", "now"]
