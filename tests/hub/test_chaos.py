"""Whatever mixture of faults a server shows: the file under the name is whole, or there is none."""

from __future__ import annotations

import os
import random
import threading

import pytest
from hub.conftest import FILE, REPO, Bench, content
from hub.liar import Handler

from rwkv_cli.errors import RwkvError
from rwkv_cli.hub.onefile import Manner

RUNS = int(os.environ.get("RWKV_TEST_CHAOS", "6"))


class Chaos:
    """Answers at random: most often rightly."""

    def __init__(self, seed: int) -> None:
        self._rng, self._lock = random.Random(seed), threading.Lock()

    def __call__(self, handler: Handler, data: bytes) -> bool:
        with self._lock:
            turn, share = self._rng.random(), self._rng.random()
        if turn < 0.5:
            return False
        if turn < 0.6:
            handler.hang_up()
        elif turn < 0.7:
            handler.reply(500 if share < 0.5 else 429, b"", {"Retry-After": "0"})
        elif turn < 0.9:
            return self._cut_off(handler, data, share)
        elif turn < 0.92:
            at = int(share * len(data))
            handler.send_part(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        elif turn < 0.94:
            handler.reply(200, data[: int(share * len(data))])
        elif turn < 0.96:
            handler.send_part(data, **{"Content-Range": f"bytes 0-9/{len(data)}"})
        elif turn < 0.98:
            handler.send_part(data, ETag='"another"')
        else:
            handler.reply(404 if share < 0.5 else 403)
        return True

    def _cut_off(self, handler: Handler, data: bytes, share: float) -> bool:
        """Send a part of what was asked for, then hang up."""
        if handler.name == "hub":
            return False
        begin, _, end = handler.headers.get("Range", "bytes=0-0")[6:].partition("-")
        last = min(int(end or 0), len(data) - 1)
        body = data[int(begin) : last + 1]
        handler.send_response(206)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("Content-Range", f"bytes {begin}-{last}/{len(data)}")
        handler.end_headers()
        handler.wfile.write(body[: int(share * len(body))])
        handler.hang_up()
        return True


@pytest.mark.parametrize("seed", range(RUNS))
def test_a_server_at_random_gives_the_file_or_nothing(bench: Bench, seed: int) -> None:
    rng = random.Random(seed)
    data = bench.liar.add(REPO, FILE, content(rng.randrange(1, 900_000), seed))
    bench.liar.lie, bench.liar.ranges = Chaos(seed), rng.random() < 0.8
    for _ in range(4):
        try:
            bench.fetch(manner=Manner(rng.randrange(1, 6), 1.0))
        except RwkvError as error:
            assert error.exit_code in (5, 6)
            assert not bench.place.exists()
        else:
            assert bench.place.read_bytes() == data
            break
    bench.liar.lie = None
    bench.fetch()
    assert bench.place.read_bytes() == data
    assert bench.litter() == [f"{FILE}.json"]
