"""What is carried between machines arrives as it left."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from rwkv_cli.batch.row import Answer, Request, RowError, Sample, TokenScore
from rwkv_cli.batch.wire import packed_answer, packed_request, unpacked_answer, unpacked_request
from rwkv_cli.sampling import Sampling

COUNTS = st.integers(0, 2**53 - 1)
LOGPROBS = st.floats(allow_nan=False)
SAMPLINGS = st.builds(
    Sampling,
    st.floats(0, 10),
    st.floats(0, 1),
    st.integers(0, 1 << 20),
    order=st.sampled_from(["rwkv", "openai"]),
    banned=st.lists(st.integers(0, 65535)).map(tuple),
)
REQUESTS = st.builds(
    Request,
    COUNTS,
    st.binary(),
    SAMPLINGS,
    COUNTS,
    COUNTS,
    st.lists(st.binary(min_size=1)).map(tuple),
    st.booleans(),
    st.integers(1, 9),
    st.none() | st.integers(0, 20),
    st.none() | st.text(),
)
TOPS = st.lists(st.tuples(COUNTS, st.binary(), LOGPROBS), max_size=3).map(tuple)
SCORES = st.builds(TokenScore, COUNTS, st.binary(), LOGPROBS, TOPS)
SAMPLES = st.builds(
    Sample,
    st.binary(),
    st.sampled_from(["end", "stop", "length"]),
    COUNTS,
    st.none() | st.lists(SCORES, max_size=3).map(tuple),
)
ANSWERS = st.builds(
    Answer,
    COUNTS,
    COUNTS,
    COUNTS,
    st.lists(SAMPLES, max_size=3).map(tuple),
    st.none() | st.builds(RowError, st.text(), st.text()),
)


@settings(max_examples=20)
@given(REQUESTS)
def test_a_request_arrives_as_it_left(request: Request) -> None:
    data = packed_request(request)
    assert unpacked_request(data) == request
    assert json.loads(data)["index"] == request.index


@settings(max_examples=20)
@given(ANSWERS)
def test_an_answer_arrives_as_it_left(answer: Answer) -> None:
    assert unpacked_answer(packed_answer(answer)) == answer
