"""A batch on a cluster that is played by one process: nothing is lost, nothing comes twice."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from oracle.fake_ray import IDENTITY, FakeRay, answered, machine

from rwkv_cli.batch import ray_run
from rwkv_cli.batch.ray_cluster import join
from rwkv_cli.batch.ray_places import cards_wanted, places
from rwkv_cli.batch.ray_run import RayRunner
from rwkv_cli.batch.ray_worker import Job
from rwkv_cli.batch.row import Answer, Request, RowError
from rwkv_cli.errors import MismatchError, NotFoundError, UsageError
from rwkv_cli.sampling import Sampling

TWO = [machine("a"), machine("b")]


def requests(count: int) -> Iterator[Request]:
    for index in range(count):
        yield Request(index, b"row %d" % index, Sampling(), index + 7, 5)


def wanted(count: int) -> list[Answer]:
    return [answered(one.index, one.prompt, one.seed) for one in requests(count)]


def started(
    monkeypatch: pytest.MonkeyPatch, ray: FakeRay, said: list[str], **options: Any
) -> RayRunner:
    monkeypatch.setattr(ray_run, "join", lambda address: ray)
    job = options.pop("job", Job("model.pth", slots=4))
    runner = RayRunner(job, say=said.append, **options)
    runner.start()
    return runner


@pytest.mark.parametrize("seed", range(4))
def test_every_row_is_answered_once_whoever_dies(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    ray = FakeRay([*TWO, machine("c")], seed=seed, death=0.02)
    runner = started(monkeypatch, ray, [])
    answers = sorted(runner.run(requests(300)), key=lambda answer: answer.index)
    runner.close()
    assert ray.deaths > 0
    assert answers == wanted(300)


def test_no_more_rows_are_out_than_workers_have_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    ray = FakeRay(TWO)
    runner = started(monkeypatch, ray, [])

    def counted() -> Iterator[Request]:
        for request in requests(200):
            taken.append(request.index)
            yield request

    for done, _ in enumerate(runner.run(counted())):
        assert len(taken) - done <= 2 * 2 * 4 + runner.slots + 2
    runner.close()
    assert ray.most <= 2 * 2 * 4


def test_a_worker_has_as_many_rows_as_its_own_slots_make_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = FakeRay(TWO, told=lambda name: {"slots": 12 if name == "a" else 2})
    runner = started(monkeypatch, ray, [], job=Job("model.pth"))
    assert runner.slots == 14
    assert len(list(runner.run(requests(300)))) == 300
    runner.close()
    assert {one.node: one.most for one in ray.actors} == {"a": 24, "b": 4}


def test_states_are_called_by_what_they_are_called_everywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find(name: str) -> str:
        if name == "gone":
            raise NotFoundError("there is no state 'gone'")
        return f"/states/{name}"

    ray = FakeRay(TWO)
    runner = started(monkeypatch, ray, [], find_state=find)
    names = ["king", None, "gone"]
    asked = [replace(one, state=names[one.index]) for one in requests(3)]
    answers = sorted(runner.run(asked), key=lambda answer: answer.index)
    runner.close()
    assert ray.states == {0: "/states/king", 1: None}
    gone = Answer(2, asked[2].seed, error=RowError("state", "there is no state 'gone'"))
    assert answers == [*wanted(2), gone]


def test_a_row_that_kills_its_workers_takes_no_other_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    ray = FakeRay(TWO, poison={9})
    runner = started(monkeypatch, ray, said)
    answers = sorted(runner.run(requests(60)), key=lambda answer: answer.index)
    runner.close()
    error = RowError("worker_lost", "each of the 5 workers that had this row was lost")
    expected = wanted(60)
    expected[9] = Answer(9, expected[9].seed, error=error)
    assert answers == expected
    assert ray.deaths == 5
    assert said[-1] in [
        f"the worker on {name} was lost (the actor is dead); 1 row is redone" for name in "ab"
    ]


def test_what_most_workers_have_loaded_is_what_all_must_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    other = {"identity": {**IDENTITY, "numerics": "other"}}
    ray = FakeRay([machine("z"), *TWO], told=lambda name: other if name == "z" else {})
    runner = started(monkeypatch, ray, said)
    assert (runner.workers, runner.identity) == (2, IDENTITY)
    assert len(list(runner.run(requests(20)))) == 20
    runner.close()
    assert said == [
        "the worker on z has the arithmetic other, not n, and would write other texts; "
        "it is left out"
    ]


@pytest.mark.parametrize(
    ("told", "kind", "sentence"),
    [
        ({"identity": {**IDENTITY, "weights": "x"}}, MismatchError, "has the weights x, not w"),
        ({"version": "0.0"}, MismatchError, "has rwkv 0.0, not "),
        (
            {"error": "m.pth does not exist", "hint": None, "exit_code": 3},
            NotFoundError,
            "cannot load the model: m.pth does not exist",
        ),
    ],
)
def test_a_run_with_no_fitting_worker_says_why(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, Any], kind: type[Exception], sentence: str
) -> None:
    ray = FakeRay(TWO, told=lambda name: told)
    with pytest.raises(kind, match=sentence):
        started(monkeypatch, ray, [], expected={"weights": "w"})


def test_a_machine_that_joins_later_takes_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rwkv_cli.batch.ray_crew._LOOK", 0.0)
    ray = FakeRay([machine("a")])
    runner = started(monkeypatch, ray, [])
    answers = runner.run(requests(200))
    first = [next(answers) for _ in range(20)]
    ray.machines = [*TWO]
    rest = list(answers)
    runner.close()
    assert sorted([*first, *rest], key=lambda answer: answer.index) == wanted(200)
    assert {actor.node for actor in ray.actors} == {"a", "b"}


def test_an_interrupted_run_ends_and_its_workers_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay(TWO)
    runner = started(monkeypatch, ray, [])
    answers = runner.run(requests(10**9))
    got = [next(answers) for _ in range(10)]
    runner.interrupt()
    got += answers
    runner.close()
    assert len({answer.index for answer in got}) == len(got) < 100
    assert ray.is_shut
    assert all(actor.dead for actor in ray.actors)


def test_an_answer_among_the_requests_passes_by(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Answer(3, 0, error=RowError("bad_json", "it is none"))
    runner = started(monkeypatch, FakeRay(TWO), [])
    items = [known if one.index == 3 else one for one in requests(8)]
    answers = sorted(runner.run(items), key=lambda answer: answer.index)
    runner.close()
    expected = wanted(8)
    expected[3] = known
    assert answers == expected


def test_an_engine_takes_a_card_or_all_processors_of_a_machine() -> None:
    nodes = [
        machine("cpu", cpus=8),
        machine("gone", alive=False),
        machine("cards", cpus=16, gpus=4),
        machine("head", cpus=0),
    ]

    def seen(cards: int | None) -> list[tuple[str, int, int]]:
        return [(one.name, one.processors, one.cards) for one in places(nodes, cards)]

    assert seen(0) == [("cpu", 8, 0), ("cards", 16, 0)]
    assert seen(1) == seen(None) == [(f"cards/{k}", 4, 1) for k in range(4)]
    assert seen(2) == [("cards/0", 8, 2), ("cards/1", 8, 2)]
    assert [one.name for one in places(nodes[:2], None)] == ["cpu"]


def test_cards_follow_from_the_strategy() -> None:
    assert cards_wanted(Job("m")) is None
    assert cards_wanted(Job("m", device="cpu")) == 0
    assert cards_wanted(Job("m", device="cuda")) == 1
    assert cards_wanted(Job("m", strategy="cuda:0 fp16 *10 -> cuda:1 fp16")) == 2
    with pytest.raises(UsageError, match="hands out no mps"):
        cards_wanted(Job("m", device="mps"))


def test_a_cluster_without_what_the_job_needs_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="has a GPU to offer"):
        started(monkeypatch, FakeRay(TWO), [], job=Job("m", device="cuda"))


def test_without_the_package_the_way_to_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="needs the package ray") as caught:
        join("auto")
    assert caught.value.hint == "pip install 'rwkv-cli[ray]'"
