"""Generation: golden tokens, what a session remembers, seeds, limits and bad input."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

import mimo_audio.generation.session as session_module
import mimo_audio_native as mn
from mimo_audio.errors import GenerationError, LanguageModelError
from mimo_audio.generation import generate
from mimo_audio.generation.session import Limits, Session
from mimo_audio.lm import groups
from mimo_audio.lm.samplers import AUDIO, GREEDY, Sampler

WARM = Sampler(temperature=0.8, top_p=0.95)


def generated(session: Session, prompt: torch.Tensor, limits: Limits, *settings) -> torch.Tensor:
    return torch.cat(list(session.generate(prompt, limits, *settings)), 1)


def test_greedy_tokens_are_the_published_ones(golden):
    for name, options in golden.cases.items():
        prompt = golden.arrays[f"{name}.prompt_ids"].long()
        most = min(options["max_new"], options.get("gmax", 1 << 20) - options["prompt_groups"])
        limits = {"min_new": options.get("min_new", 0), "stop": options.get("stop", ())}
        new = generate(golden.model, prompt, max(1, most), **limits)
        assert torch.equal(new, golden.arrays[f"{name}.new_ids"].long()), name


def test_groups_come_one_by_one(model, prompt):
    stream = Session(model).generate(prompt, Limits(5))
    first = next(stream)
    assert first.shape == (9, 4)
    assert torch.equal(torch.cat([first, *stream], 1), generate(model, prompt, 5))


def test_seeds(model, prompt):
    draws = [generate(model, prompt, 12, text_sampler=WARM, audio_sampler=AUDIO, seed=seed) for seed in (5, 5, 6)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    patches = groups.split(draws[0], 4)
    patches = patches[patches[:, 0, 0] == model.special.empty]
    for channel, empty in enumerate(model.config.speech_zeroemb_idx):
        assert (patches[:, 1 + channel] != empty).all()


def read_lengths(model, monkeypatch) -> list[int]:
    """Collects how many groups the model is given at a time."""
    lengths: list[int] = []
    embed = model.embed_groups
    monkeypatch.setattr(model, "embed_groups", lambda new: lengths.append(new.shape[1]) or embed(new))
    return lengths


@pytest.fixture
def small_blocks(monkeypatch) -> None:
    monkeypatch.setattr(session_module, "BLOCK", 8)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("shared", "known"), [(0, 0), (7, 0), (8, 8), (20, 16), (53, 48), (60, 56)])
def test_a_session_reads_only_what_is_new(model, prompt, shared, known, monkeypatch):
    """The second prompt shares a beginning with the first; its answer is that of a fresh session."""
    first = torch.cat([prompt, prompt[:, :24]], 1)  # 60 groups
    other = torch.cat([first[:, : 4 * shared], first.flip(1).roll(2, 1)[:, : 4 * (60 - shared)]], 1)
    other[0, ::4] = other[0, ::4].clamp(min=0)
    expected = generated(Session(model), other, Limits(6), WARM, AUDIO, 3)
    session = Session(model)
    generated(session, first, Limits(1))
    lengths = read_lengths(model, monkeypatch)
    assert torch.equal(generated(session, other, Limits(6), WARM, AUDIO, 3), expected)
    assert lengths == [8] * ((60 - known) // 8) + [4] + [1] * 5


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("channel", range(8))
def test_recordings_of_equal_length_share_no_answers(model, prompt, channel, monkeypatch):
    """Prompts that differ in one code of one codebook, in the last frame of a patch, and in nothing else."""
    patch = next(i for i in range(20, 54) if prompt[0, 4 * i] == model.special.empty)
    other = prompt.clone()
    other[1 + channel, 4 * patch + 3] = (other[1 + channel, 4 * patch + 3] + 1) % 100
    expected = generated(Session(model), other, Limits(4), WARM, AUDIO, 3)
    session = Session(model)
    generated(session, prompt, Limits(1))
    lengths = read_lengths(model, monkeypatch)
    assert torch.equal(generated(session, other, Limits(4), WARM, AUDIO, 3), expected)
    assert lengths[:-3] == [8] * (6 - patch // 8) + [6]


@pytest.mark.parametrize("text", [GREEDY, WARM])
def test_every_draw_is_that_of_its_seed_and_group(model, prompt, text):
    """Text and codes of group n are what the ops draw from the logits of the whole sequence, at offset n."""
    seed, count = 1, 14
    new = generate(model, prompt, count, 0, (), text, AUDIO, seed)
    with torch.no_grad():
        whole = model(torch.cat([prompt, new], 1)[None])
    seeds, patches = torch.tensor([seed]), 0
    for number, group in enumerate(groups.split(new, 4)):
        before, offset = 53 + number, torch.tensor([number])
        token = mn.sample(whole.text_logits[:, before], *text.rows(1, torch.device("cpu")), seeds, offset)
        assert group[0, 0] == token
        if token == model.special.empty:
            codes = model.patch_decode(whole.local_hidden[:, before], AUDIO, seeds, offset)[0].T
            assert torch.equal(group[1:], codes), number
            patches += 1
    assert patches > 1


def test_top_p_and_top_k_reach_text_and_audio(model, prompt):
    """At a heat where all tokens are alike, a tiny top-p or a top-k of one leaves the largest."""
    greedy = generate(model, prompt, 10)
    hot = Sampler(temperature=50.0)
    for narrow in (Sampler(temperature=50.0, top_p=1e-6), Sampler(temperature=50.0, top_k=1)):
        assert torch.equal(generate(model, prompt, 10, 0, (), narrow, narrow, 4), greedy)
        assert torch.equal(generate(model, prompt, 10, 0, (), GREEDY, narrow, 4), greedy)
        assert not torch.equal(generate(model, prompt, 10, 0, (), GREEDY, hot, 4), greedy)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_answer_does_not_depend_on_requests_before(model, prompt, dtype):
    """To the last bit of what the text head reads: close is not the same once tokens are drawn."""
    model = deepcopy(model).to(dtype)
    states: list[torch.Tensor] = []
    model.lm_head.register_forward_pre_hook(lambda _, given: states.append(given[0]))
    session = Session(model)
    for length in (54, 54, 25, 48, 54, 49, 54):
        states.clear()
        new = generated(session, prompt[:, : 4 * length], Limits(8), WARM, AUDIO, 1)
        again = states.copy()
        states.clear()
        assert torch.equal(new, generate(model, prompt[:, : 4 * length], 8, 0, (), WARM, AUDIO, 1))
        assert all(map(torch.equal, again, states)), length


@pytest.mark.usefixtures("small_blocks")
def test_the_next_turn_goes_on_from_the_one_before(model, prompt, monkeypatch):
    session = Session(model)
    answer = generated(session, prompt, Limits(8), WARM, AUDIO, 1)
    dialogue = torch.cat([prompt, answer, prompt[:, :40]], 1)  # 72 groups
    expected = generate(model, dialogue, 4)
    lengths = read_lengths(model, monkeypatch)
    assert torch.equal(generated(session, dialogue, Limits(4)), expected)
    assert lengths == [8] * 3 + [1] * 3  # from the first block that the prompt before did not fill


def test_a_prompt_of_many_blocks(golden, monkeypatch):
    whole = golden.model(golden.arrays["input_ids"])
    monkeypatch.setattr(session_module, "BLOCK", 7)
    states: list[torch.Tensor] = []
    with golden.model.lm_head.register_forward_pre_hook(lambda _, given: states.append(given[0])):
        generated(Session(golden.model), golden.arrays["input_ids"][0], Limits(1))
    torch.testing.assert_close(states[0], whole.hidden[:, -1], atol=5e-5, rtol=0)


@pytest.mark.usefixtures("small_blocks")
def test_an_interrupted_prompt_is_forgotten(model, prompt, monkeypatch):
    """Part of its blocks were read when it happened."""
    expected = generate(model, prompt, 3)
    session = Session(model)
    generated(session, prompt.flip(1).roll(2, 1).clamp(min=0), Limits(2))
    run, calls = model.backbone.forward, []

    def interrupted(*given, **named):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(model.backbone, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            generated(session, prompt, Limits(3))
    assert torch.equal(generated(session, prompt, Limits(3)), expected)


def test_what_means_nothing_does_not_count_as_different(model, prompt):
    session = Session(model)
    generated(session, prompt, Limits(1))
    noisy = prompt.clone()
    noisy[0].view(-1, 4)[:, 1:] = 7  # text columns beside the first of a group
    is_text = (noisy[0, ::4] != model.special.empty).repeat_interleave(4)
    noisy[1:, is_text] = 0  # codes beside a text token
    assert torch.equal(generated(session, noisy, Limits(3)), generate(model, prompt, 3))
    assert torch.equal(session._keys(groups.split(noisy, 4)), session._keys(groups.split(prompt, 4)))


def test_stop_and_least_length(model, prompt):
    free = generate(model, prompt, 10)[0, ::4].tolist()
    stop = free[4]
    for ids in ((stop,), {stop}, torch.tensor([stop]), [np.int64(stop)]):
        assert generate(model, prompt, 10, stop=ids)[0, ::4].tolist() == free[: free.index(stop) + 1]
    longer = generate(model, prompt, 10, min_new=8, stop=(stop,))[0, ::4].tolist()
    assert stop not in longer[:8]
    assert len(longer) >= 9


@pytest.mark.parametrize("due", [3, 4, 5])
def test_stop_ids_are_forbidden_for_exactly_the_first_groups(model, prompt, due):
    """Greedy generation comes to an id at group `due`: that ends it, unless one group more is asked for."""
    free = generate(model, prompt, 10)[0, ::4].tolist()
    stop = free[due]
    assert stop not in free[:due]
    assert generate(model, prompt, 10, min_new=due, stop=(stop,))[0, ::4].tolist() == free[: due + 1]
    longer = generate(model, prompt, 10, min_new=due + 1, stop=(stop,))
    with torch.no_grad():
        logits = model(torch.cat([prompt, longer], 1)[None]).text_logits[0, 53 + due]
    logits[stop] = -torch.inf
    assert longer[0, ::4].tolist()[: due + 1] == [*free[:due], int(logits.argmax())]


def test_an_error_leaves_the_session_usable(model, prompt):
    session = Session(model)
    expected = generate(model, prompt, 3)
    stream = session.generate(prompt, Limits(9))
    next(stream)
    stream.close()
    with pytest.raises(LanguageModelError):
        session.generate(prompt[:, :-1], Limits(3))
    assert torch.equal(generated(session, prompt, Limits(3)), expected)


def test_weights_that_are_not_finite(model, prompt):
    """Found when they are used: reading all of a large model to look for them would double the time to load it."""
    broken = deepcopy(model)
    broken.patch_decoder.heads[3].weight.data[5] = torch.nan
    with pytest.raises(LanguageModelError, match=r"^the patch decoder's logits are not finite"):
        generate(broken, prompt, 30)
    broken.backbone.transformer.norm.weight.data[0] = torch.inf
    with pytest.raises(GenerationError, match=r"^the model's text logits are not finite.*torch.float32"):
        generate(broken, prompt, 30)


def test_the_context_ends_generation(model, prompt, monkeypatch):
    monkeypatch.setattr(model, "config", replace(model.config, max_position_embeddings=56))
    assert generate(model, prompt, 40).shape == (9, 2 * 4)
    with pytest.raises(GenerationError, match=r"^prompt_ids: expected fewer groups than the context of 56, got 56"):
        generate(model, torch.cat([prompt, prompt[:, :8]], 1), 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new": 0}, "max_new: expected a number of groups >= 1, got 0"),
        ({"max_new": 2.0}, "max_new: expected a number of groups >= 1, got 2.0"),
        ({"max_new": 2, "min_new": 3}, r"min_new: expected at most max_new \(2\), got 3"),
        ({"max_new": 2, "stop": (704,)}, "stop: expected text ids from 0 to 703, got 704"),
        ({"max_new": 2, "stop": 7}, "stop: expected a collection of text ids, got 7"),
        ({"max_new": 2, "stop": None}, "stop: expected a collection of text ids, got None"),
        ({"max_new": 2, "stop": "ab"}, "stop: expected a collection of text ids, got 'ab'"),
        ({"max_new": 2, "stop": (1.5,)}, r"stop: expected a collection of text ids, got \(1.5,\)"),
        ({"max_new": 2, "seed": True}, "seed: expected an integer of 64 bits, got True"),
        ({"max_new": 2, "seed": 1 << 63}, "seed: expected an integer of 64 bits"),
        ({"max_new": 2, "seed": 0.5}, "seed: expected an integer of 64 bits, got 0.5"),
    ],
)
def test_bad_settings(model, prompt, settings, message):
    with pytest.raises(GenerationError, match=f"^{message}"):
        generate(model, prompt, **settings)


def test_a_session_forgets_what_it_read_with_other_weights(model, prompt):
    model = deepcopy(model)
    long = prompt.repeat(1, -(-300 // (prompt.shape[1] // 4)))
    session = Session(model)
    generated(session, long, Limits(2))
    assert session._cache.length >= 256
    with torch.no_grad():
        model.backbone.embed_tokens.weight.mul_(1.5)
    assert torch.equal(generated(session, long, Limits(3)), generate(model, long, 3))
    model.load_state_dict({name: 0.5 * value for name, value in model.state_dict().items()})
    assert torch.equal(generated(session, long, Limits(3)), generate(model, long, 3))
    model.to(torch.bfloat16)
    assert torch.equal(generated(session, long, Limits(3)), generate(model, long, 3))
