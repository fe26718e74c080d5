"""What a model reads while it is measured: prose, since random tokens would leave other neurons
silent than a text does, and a fast engine skips those.
"""

from __future__ import annotations

from rwkv_cli.text.tokenizer import Tokenizer

PROSE = """\
The lighthouse stood at the end of a long spit of sand, and for eleven months of the year nobody
came there but the man who brought the oil. He came on Thursdays, when the tide allowed it, with a
grey horse that knew the way better than he did. In the twelfth month the herring arrived, and with
them two hundred boats, and the harbour was so full that a child could walk from one pier to the
other without wetting a shoe. Anna kept the light, as her father had kept it. She wrote down the
weather at six in the morning and at six in the evening: wind from the south-west, force 4, some
rain; visibility 9 miles; the barometer at 1,013 and falling. What she did not write down was that
she talked to the lamp. It was a patient listener. "You turn once in twelve seconds," she told it,
"and I have counted 2,628,000 turns this year. Is that not enough for both of us?" The lamp went
round, and its beam ran over the water, touched a sail, and moved on.

How does such a lamp reach so far? A flame sends its light in every direction, and most of it is
lost in the sky. The lens bends what would be lost: rings of glass, each cut at its own angle, turn
the rays until they lie side by side. The inventor was told that it could not be built, because no
glass so large was clear enough. So he built it in pieces.

"""


def passage(tokenizer: Tokenizer, count: int, start: int = 0, text: bytes = b"") -> list[int]:
    """Give tokens of a text that begins anew whenever it ends.

    Args:
        tokenizer: That of the model.
        count: How many.
        start: Position of the first one.
        text: Another text than ours.
    """
    ids = tokenizer.encode(text or PROSE.encode())
    return [ids[i % len(ids)] for i in range(start, start + count)]
