"""What people may call a model, and what they are told when nothing has that name."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rwkv_cli.errors import NotFoundError, StorageError
from rwkv_cli.hub.matching import matching, same_name
from rwkv_cli.hub.names import NotInstalledError, default_model, demo, installed, resolve
from rwkv_cli.hub.registry import Registry, change_registry

FUZZ = int(os.environ.get("NAMES_EXAMPLES", "60"))
WORLD = "RWKV-x070-World-1.5B-v3.pth"
G1 = "rwkv7-g1d-0.4b-20260210-ctx8192.pth"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder, beside an empty current folder and a registry of its own."""
    monkeypatch.setenv("RWKV_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    models = tmp_path / "models"
    models.mkdir()
    for name in (WORLD, G1, "other.gguf", "old.bin", "ai.st"):
        (models / name).write_bytes(b"weights")
    for name in (f"{G1}.json", "half.pth.part", "notes.txt", ".hidden.pth"):
        (models / name).write_bytes(b"{}")
    return models


def say(**content: object) -> None:
    change_registry(lambda _: Registry(**content))  # type: ignore[arg-type]


def test_sidecars_parts_and_hidden_files_are_no_models(folder: Path) -> None:
    assert set(installed(folder)) == {WORLD[:-4], G1[:-4], "other", "old", "ai"}


def test_a_folder_is_a_model_when_it_holds_a_config_and_weights(folder: Path) -> None:
    for name, files in {"hf": ["config.json", "a.safetensors"], "empty": ["config.json"]}.items():
        (folder / name).mkdir()
        for file in files:
            (folder / name / file).write_bytes(b"{}")
    found = installed(folder)
    assert found["hf"] == folder / "hf"
    assert "empty" not in found
    assert resolve(str(folder / "hf"), folder) == folder / "hf"


def test_two_files_that_differ_in_the_suffix_are_called_by_their_whole_names(folder: Path) -> None:
    (folder / "other.pth").write_bytes(b"weights")
    assert {"other.pth", "other.gguf"} <= set(installed(folder))
    assert resolve("other.pth", folder).name == "other.pth"
    with pytest.raises(NotFoundError, match="any of"):
        resolve("other", folder)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("RWKV-x070-World-1.5B-v3", WORLD),
        ("rwkv_x070_world_1b5_V3", WORLD),
        ("1.5b", WORLD),
        ("1b5", WORLD),
        ("1-5b", WORLD),
        (WORLD, WORLD),
        ("g1-0.4b", G1),
        ("0b4", G1),
        ("OTHER", "other.gguf"),
    ],
)
def test_a_model_is_found_by_what_people_call_it(folder: Path, name: str, file: str) -> None:
    assert resolve(name, folder) == folder / file


def test_a_name_that_is_equal_comes_before_one_that_is_longer(folder: Path) -> None:
    (folder / "other-tuned.pth").write_bytes(b"weights")
    assert resolve("other", folder).name == "other.gguf"
    assert matching("1b", ["x-11b", "x-1b"]) == ["x-1b"]
    assert same_name("World_1B5", "world-1.5b")


def test_a_path_comes_before_every_other_meaning(folder: Path) -> None:
    Path("other").write_bytes(b"weights")
    assert resolve("other", folder) == Path("other")
    assert resolve("./other", folder) == Path("other")


def test_a_folder_that_happens_to_be_here_hides_no_model(folder: Path) -> None:
    Path("other").mkdir()
    assert resolve("other", folder) == folder / "other.gguf"


def test_an_alias_comes_before_installed_names(folder: Path, tmp_path: Path) -> None:
    say(aliases={"daily": WORLD[:-4], "Old": "demo", "far": str(tmp_path / "far.pth")})
    assert resolve("DAILY", folder) == folder / WORLD
    assert resolve("old", folder) == demo()
    with pytest.raises(NotFoundError, match="gone") as caught:
        resolve("far", folder)
    assert caught.value.hint == "rwkv models alias --remove far"
    (tmp_path / "far.pth").write_bytes(b"weights")
    assert resolve("far", folder) == tmp_path / "far.pth"


def test_a_model_added_in_place_has_a_name(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "far.pth").write_bytes(b"weights")
    say(added={"big": str(tmp_path / "far.pth")})
    assert resolve("big", folder) == tmp_path / "far.pth"
    (folder / "big.bin").write_bytes(b"one of that name that came later")
    assert installed(folder)["big"] == tmp_path / "far.pth"
    assert resolve("big.bin", folder) == folder / "big.bin"
    (tmp_path / "far.pth").unlink()
    with pytest.raises(NotFoundError, match=r"big is gone.*far.pth"):
        resolve("big", folder)


@pytest.mark.parametrize("name", ["1.5b", "g1-1.5b", "rwkv7-g1k-1.5b-20260930-ctx25600.pth"])
def test_what_the_catalogue_knows_is_met_with_the_command_that_fetches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("RWKV_DATA_DIR", str(tmp_path))
    with pytest.raises(NotFoundError) as caught:
        resolve(name, tmp_path / "none")
    if not name.endswith(".pth"):  # that may be meant as a file here
        assert caught.value.hint == "rwkv download g1-1.5b  (3.1 GB)"


@pytest.mark.parametrize(
    "name", ["BlinkDL/rwkv7-g1", "BlinkDL/rwkv7-g1:a.pth", "BlinkDL/rwkv7-g1:a.pth@cd67"]
)
def test_a_repository_is_found_by_what_a_download_wrote(folder: Path, name: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        resolve(name, folder)
    assert caught.value.hint == f"rwkv download {name}"
    known = {"url": "u", "repo": "BlinkDL/rwkv7-g1", "file": "a.pth", "revision": "cd67fb95"}
    (folder / f"{WORLD}.json").write_text(json.dumps(known))
    assert resolve(name, folder) == folder / WORLD
    with pytest.raises(NotFoundError):
        resolve("BlinkDL/rwkv7-g1:b.pth", folder)


def test_several_that_fit_are_listed(folder: Path) -> None:
    with pytest.raises(NotFoundError, match=r"'rwk' could be any of .*World.*g1d"):
        resolve("rwk", folder)
    for number in range(20):
        (folder / f"rwkv-{number}.pth").write_bytes(b"weights")
    with pytest.raises(NotFoundError, match="and 14 more"):
        resolve("rwk", folder)


def test_what_is_close_is_suggested(folder: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        resolve("othr", folder)
    assert caught.value.hint == "did you mean other?"


@pytest.mark.parametrize(
    "name",
    ["x" * 300, "x" * 5000, "a\0b", "..", ".", "/", "~", "~nobody-has-this-name/x", "link",
     "./link", "ring", "none/none.pth", "/dev/null/x", "...", "-", "", "\x1b[31m", "a\nb", "\udcff",
     "[bold]", "none.pth", "https://example.org/x.pth", "a/b/c", "folder", "./folder"],
)  # fmt: skip
def test_what_names_no_model_is_not_found(folder: Path, name: str) -> None:
    Path("link").symlink_to("nowhere")
    Path("ring").symlink_to("ring")
    Path("folder").mkdir()
    with pytest.raises(NotFoundError) as caught:
        resolve(name, folder)
    assert len(caught.value.message) < 400


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may look")
def test_a_path_that_may_not_be_looked_at_says_so(folder: Path) -> None:
    Path("closed").mkdir(mode=0)
    with pytest.raises(StorageError, match="permission"):
        resolve("closed/x.pth", folder)


def test_the_default_is_what_was_chosen_else_the_newest_else_the_demo(
    folder: Path, tmp_path: Path
) -> None:
    assert default_model(tmp_path / "none") == demo()
    os.utime(folder / G1, (2e9, 2e9))
    (folder / "gone.pth").symlink_to("nowhere")
    assert default_model(folder) == folder / G1
    say(default="other", added={"lost": str(tmp_path / "lost.pth")})
    Path("other").write_bytes(b"a file of that name here is another thing")
    assert default_model(folder) == folder / "other.gguf"
    (folder / "other.gguf").unlink()
    with pytest.raises(NotFoundError, match=r"other.*gone") as caught:
        default_model(folder)
    assert caught.value.hint == "rwkv models default --unset"


@settings(
    max_examples=FUZZ, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.one_of(
        st.text(max_size=40),
        st.text("abx015.-_/:@~ \0\n", max_size=12),
        st.lists(st.sampled_from(["..", "/", "rwkv", "1b5", "~", ":", "@", "BlinkDL", "-"])).map(
            "".join
        ),
    )
)
def test_every_text_is_a_model_or_is_not_found(folder: Path, name: str) -> None:
    try:
        found = resolve(name, folder)
    except NotFoundError as error:
        assert len(error.message) < 400
    else:
        assert found.exists()


@settings(max_examples=FUZZ, deadline=None)
@given(words=st.lists(st.text("abx0159", min_size=1, max_size=4), min_size=1, max_size=4))
def test_separators_and_case_never_matter(words: list[str]) -> None:
    forms = [mark.join(words) for mark in "_-."]
    assert all(same_name(forms[0].upper(), form) for form in forms)
    assert all(matching(form, [forms[0], "other"])[0] == forms[0] for form in forms)


def test_what_several_models_may_be_called_is_no_model_to_download(folder: Path) -> None:
    with pytest.raises(NotInstalledError, match="is not installed"):
        resolve("0.1b", folder)
    for name in ("mine-0.1b-a.pth", "mine-0.1b-b.pth"):
        (folder / name).write_bytes(b"weights")
    with pytest.raises(NotFoundError, match="could be any of") as told:
        resolve("0.1b", folder)
    assert not isinstance(told.value, NotInstalledError)


def test_a_model_is_found_by_the_url_that_it_came_from(folder: Path) -> None:
    url = "https://example.org/files/some.pth"
    with pytest.raises(NotFoundError) as told:
        resolve(url, folder)
    assert told.value.hint == f"rwkv download {url}"
    (folder / f"{WORLD}.json").write_text(json.dumps({"url": url}))
    assert resolve(url, folder) == folder / WORLD
