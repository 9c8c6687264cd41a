"""Models by their names on the hub, in a cache as huggingface_hub writes it."""

from pathlib import Path

import pytest

from mimo_audio.errors import ModelError
from mimo_audio.released import hub
from mimo_audio.tasks import pairing
from mimo_audio.tokenizer import AudioTokenizer

GOLDEN = Path(__file__).parents[1] / "golden" / "ckpt"
BASE = "XiaomiMiMo/MiMo-Audio-7B-Base"


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a checkpoint into an empty cache, behind an older snapshot of nothing."""
    for name in ("HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))

    def add(name: str, checkpoint: str) -> Path:
        repository = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        for folder in ("refs", "snapshots/0000"):
            (repository / folder).mkdir(parents=True)
        (repository / "refs" / "main").write_text("1234")
        (repository / "snapshots" / "1234").symlink_to(GOLDEN / checkpoint)
        return repository / "snapshots" / "1234"

    return add


def test_names_are_found(add) -> None:
    model, tokenizer = add(BASE, "A_lm_s0"), add(hub.TOKENIZER, "A_tok_s0")
    assert pairing.find_model(BASE) == model
    assert pairing.find_tokenizer(model, None) == pairing.find_tokenizer(model, hub.TOKENIZER) == tokenizer
    ours, same = (AudioTokenizer.from_pretrained(place).state_dict() for place in (hub.TOKENIZER, GOLDEN / "A_tok_s0"))
    assert all(ours[name].equal(same[name]) for name in same)


def test_a_folder_comes_first(add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(BASE, "A_lm_s0")
    (tmp_path / BASE).mkdir(parents=True)
    (tmp_path / BASE / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert hub.find_folder(BASE, "language model") == Path(BASE)


@pytest.mark.parametrize("name", [hub.TOKENIZER, "MiMo-Audio-Tokenizer"])
def test_what_to_type_for_a_release_that_is_not_there(add, name: str) -> None:
    with pytest.raises(ModelError, match=rf"no tokenizer at {name}: .*; hf download {hub.TOKENIZER} --local-dir MiMo"):
        AudioTokenizer.from_pretrained(name)


@pytest.mark.parametrize(
    "name", ["nowhere", "../nowhere", "/no/where", "a/b/c", "other/model", "x" * 300, f"a/{300 * 'x'}", "\0"]
)
def test_other_names_get_no_advice(add, name: str) -> None:
    with pytest.raises(ModelError, match=r"missing config\.json$"):
        hub.find_folder(name, "tokenizer")


def test_half_a_download_is_not_found(add) -> None:
    snapshot = add(BASE, "A_lm_s0")
    snapshot.unlink()
    snapshot.mkdir()
    assert hub.cached(BASE) is None
    (snapshot.parents[1] / "refs" / "main").unlink()
    assert hub.cached(BASE) is None


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/h")
    assert hub.cache() == Path("/h/.cache/huggingface/hub")
    for name, value, expected in (("XDG_CACHE_HOME", "/x", "/x/huggingface/hub"), ("HF_HOME", "/y", "/y/hub")):
        monkeypatch.setenv(name, value)
        assert hub.cache() == Path(expected)
    monkeypatch.setenv("HF_HUB_CACHE", "/z")
    assert hub.cache() == Path("/z")
