"""A conversation inside a state file: who said what, so that a file can be read by people."""

from __future__ import annotations

import json
from dataclasses import replace

from rwkv_cli.engine.state import State
from rwkv_cli.session.conversation import Conversation


def with_transcript(conversation: Conversation, state: State) -> State:
    """Attach what was said to a copy of a state, ready to be saved as a file."""
    state = state.clone()
    said = {
        "model": {"name": conversation.model.name, "path": str(conversation.model.path)},
        "template": conversation.template.name,
        "system": conversation.system,
        "turns": [
            {"user": turn.user, "answer": turn.answer, "finish": turn.finish}
            for turn in conversation.turns
        ],
    }
    text = json.dumps(said, ensure_ascii=True)
    state.attachments = replace(state.attachments, transcript=text)
    return state
