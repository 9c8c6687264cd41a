"""The engine: golden tokens, the same bits alone and beside anything, what is kept, limits, faults, bad input."""

import threading
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import mimo_audio_native as mn
from mimo_audio.engine import Engine, Guard, Limits, QueueFullError, Request, generate
from mimo_audio.engine.executor import SHAPES
from mimo_audio.errors import GenerationError, LanguageModelError
from mimo_audio.lm import AudioLanguageModel, groups
from mimo_audio.lm.quantized import Quantization, quantize
from mimo_audio.lm.samplers import AUDIO, GREEDY, Sampler

WARM = Sampler(temperature=0.8, top_p=0.95)


def request(prompt: Tensor, new: int, seed: int = 0, warm: bool = True, **limits) -> Request:
    samplers = (WARM, AUDIO) if warm else (GREEDY, GREEDY)
    return Request(prompt, Limits(new, **limits), *samplers, seed)


def alone(model: AudioLanguageModel, asked: Request) -> Tensor:
    """By an engine of its own."""
    return Engine(model, slots=1).run([asked])[0]


def test_greedy_tokens_are_the_published_ones(golden):
    for name, options in golden.cases.items():
        prompt = golden.arrays[f"{name}.prompt_ids"].long()
        most = min(options["max_new"], options.get("gmax", 1 << 20) - options["prompt_groups"])
        limits = {"min_new": options.get("min_new", 0), "stop": options.get("stop", ())}
        new = generate(golden.model, prompt, max(1, most), **limits)
        assert torch.equal(new, golden.arrays[f"{name}.new_ids"].long()), name


def test_golden_requests_in_one_batch(golden):
    requests, wanted = [], []
    for name, options in golden.cases.items():
        prompt = golden.arrays[f"{name}.prompt_ids"].long()
        most = min(options["max_new"], options.get("gmax", 1 << 20) - options["prompt_groups"])
        requests.append(
            request(prompt, max(1, most), 0, False, min_new=options.get("min_new", 0), stop=options.get("stop", ()))
        )
        wanted.append(golden.arrays[f"{name}.new_ids"].long())
    assert all(map(torch.equal, Engine(golden.model, slots=3).run(requests), wanted))


def test_every_draw_is_that_of_its_seed_and_group(model, prompt):
    """Text and codes of group n are what the ops draw from the logits of the whole sequence, at offset n."""
    seed, count = 1, 14
    for text in (GREEDY, WARM):
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


def states_of(model: AudioLanguageModel) -> list[Tensor]:
    """Collects what the text head reads."""
    states: list[Tensor] = []
    rows = model.lm_head.rows
    model.lm_head.rows = lambda x: states.append(x.clone()) or rows(x)
    return states


def test_hidden_states_are_those_of_the_model(golden):
    model = deepcopy(golden.model)
    states = states_of(model)
    ids = golden.arrays["input_ids"][0]
    generate(model, ids, 1)
    torch.testing.assert_close(states[0], golden.model(ids[None]).hidden[:, -1], atol=5e-5, rtol=0)


def varied(prompt: Tensor, start: int, length: int) -> Tensor:
    """Another prompt of the same kind: part of a golden one, turned."""
    grid = prompt.view(len(prompt), -1, 4).roll(-start, 1)[:, :length]
    return grid.reshape(len(prompt), -1)


ASKED = st.tuples(
    st.sampled_from([0, 0, 7, 20]),  # prompts often begin alike
    st.integers(1, 54),
    st.integers(1, 9),
    st.booleans(),
    st.integers(0, 3),
    st.sampled_from(["runs", "runs", "cancelled"]),
    st.integers(0, 3),  # groups of its own that it makes before the next one comes
)


@pytest.mark.parametrize(
    ("weights", "static"),
    [("float32", False), ("float32", True), ("bfloat16", False), ("bfloat16", True), ("int8", False), ("int4", False)],
)
def test_tokens_are_those_of_each_request_alone(model, prompt, weights, static) -> None:
    """Any neighbours, lengths, samplers, slots, pages, pools, threads; joining at any step, cancelled or not."""
    model = deepcopy(model)
    quantize(model, Quantization.named(weights)) if "int" in weights else model.to(getattr(torch, weights))
    known: dict[tuple, Tensor] = {}

    def tokens(start: int, length: int, new: int, warm: bool, seed: int) -> Tensor:
        key = (start, length, warm, seed)
        if key not in known or known[key].shape[1] < 4 * new:
            known[key] = alone(model, request(varied(prompt, start, length), 9, seed, warm))
        return known[key][:, : 4 * new]

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(ASKED, min_size=1, max_size=9),
        st.integers(1, 5),
        st.sampled_from([16, 32, 256]),
        st.integers(0, 4),
        st.integers(1, 3),
    )
    def check(asked, slots, size, spare, threads) -> None:
        known_tokens = [tokens(*how) for *how, _, _ in asked]
        before = torch.get_num_threads()
        engine = Engine(model, slots, 64 // size + 1 + spare, page_size=size, static=static)
        handles = []
        torch.set_num_threads(threads)
        for start, length, new, warm, seed, fate, alone_for in asked:
            handles.append(engine.submit(request(varied(prompt, start, length), new, seed, warm)))
            for _ in range(alone_for):
                next(handles[-1], None)
            if fate == "cancelled":
                next(handles[-1], None)
                handles[-1].cancel()
        results = [handle.result() for handle in handles]
        torch.set_num_threads(before)
        for (_, _, new, _, _, fate, _), result, wanted in zip(asked, results, known_tokens, strict=True):
            assert torch.equal(result.ids, wanted[:, : result.ids.shape[1]])
            if fate == "runs" or result.reason != "cancelled":
                assert result.reason == "length"
                assert result.ids.shape[1] == 4 * new
        assert not engine.busy
        assert engine.pool.held == 0

    check()


def test_a_static_step_has_a_shape_of_the_catalogue(model, prompt, monkeypatch) -> None:
    seen: set[int] = set()
    step = mn.backbone_step
    monkeypatch.setattr(mn, "backbone_step", lambda hidden, *rest: seen.add(len(hidden)) or step(hidden, *rest))
    engine = Engine(model, 5, static=True)
    engine.run([request(varied(prompt, 3 * n, 50 - n), 6, n) for n in range(5)])
    assert {rows // (4 if rows > 256 else 1) for rows in seen} <= {*SHAPES, *(4 * rows for rows in SHAPES)}


def test_an_answer_does_not_depend_on_requests_before(model, prompt):
    """To the last bit of what the text head reads: close is not the same once tokens are drawn."""
    model = deepcopy(model)
    states = states_of(model)
    engine = Engine(model, 2, 8, page_size=16)
    for length in (54, 54, 25, 48, 54, 49, 54):
        states.clear()
        asked = request(prompt[:, : 4 * length], 8, 1)
        new = engine.run([asked])[0]
        again = states.copy()
        states.clear()
        assert torch.equal(new, alone(model, asked))
        assert all(map(torch.equal, again, states)), length


def test_the_next_turn_goes_on_from_the_one_before(model, prompt):
    """What was generated is not read again either."""
    engine = Engine(model, 2, page_size=256)
    first = engine.submit(request(prompt, 12, 1)).result()
    assert first.usage.cached == 0
    dialogue = torch.cat([prompt, first.ids, prompt[:, :40]], 1)  # 76 groups
    second = engine.submit(request(dialogue, 4)).result()
    assert second.usage.cached == 64  # all whole marks of the 65 positions that have keys and values
    assert torch.equal(second.ids, alone(model, request(dialogue, 4)))


@pytest.mark.parametrize("channel", range(8))
def test_recordings_of_equal_length_share_no_answers(model, prompt, channel):
    """Prompts that differ in one code of one codebook, in the last frame of a patch, and in nothing else."""
    patch = next(i for i in range(20, 54) if prompt[0, 4 * i] == model.special.empty)
    other = prompt.clone()
    other[1 + channel, 4 * patch + 3] = (other[1 + channel, 4 * patch + 3] + 1) % 100
    engine = Engine(model, 1)
    engine.run([request(prompt, 1)])
    result = engine.submit(request(other, 4, 3)).result()
    assert result.usage.cached == patch // 16 * 16
    assert torch.equal(result.ids, alone(model, request(other, 4, 3)))


def test_what_means_nothing_does_not_count_as_different(model, prompt):
    noisy = prompt.clone()
    noisy[0].view(-1, 4)[:, 1:] = 7  # text columns beside the first of a group
    is_text = (noisy[0, ::4] != model.special.empty).repeat_interleave(4)
    noisy[1:, is_text] = 0  # codes beside a text token
    engine = Engine(model, 1)
    engine.run([request(prompt, 1)])
    result = engine.submit(request(noisy, 3, warm=False)).result()
    assert result.usage.cached == 48
    assert torch.equal(result.ids, generate(model, prompt, 3))


def test_nothing_read_with_other_weights_counts(model, prompt):
    model = deepcopy(model)
    engine = Engine(model, 2)
    engine.run([request(prompt, 2)])
    with torch.no_grad():
        model.backbone.embed_tokens.weight.mul_(1.5)
    assert torch.equal(engine.run([request(prompt, 3)])[0], alone(model, request(prompt, 3)))
    model.load_state_dict({name: 0.5 * value for name, value in model.state_dict().items()})
    assert torch.equal(engine.run([request(prompt, 3)])[0], alone(model, request(prompt, 3)))
    model.to(torch.bfloat16)
    assert torch.equal(engine.run([request(prompt, 3)])[0], alone(model, request(prompt, 3)))


def test_an_interrupted_step_has_not_happened(model, prompt, monkeypatch):
    expected = generate(model, prompt, 6)
    engine = Engine(model, 2)
    handle = engine.submit(request(prompt, 6, warm=False))
    next(handle)
    with monkeypatch.context() as patch:
        patch.setattr(engine._executor, "_draw", raise_(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            next(handle)
    assert torch.equal(handle.result().ids, expected)


def raise_(error: type[BaseException]) -> Callable[..., None]:
    def function(*_: object) -> None:
        raise error("planted")

    return function


def test_a_step_that_fails_ends_those_who_took_part(model, prompt, monkeypatch):
    engine = Engine(model, 2)
    with monkeypatch.context() as patch:
        patch.setattr(engine._executor, "_draw", raise_(MemoryError))
        result = engine.submit(request(prompt, 6)).result()
    assert result.reason == "error"
    assert str(result.error) == "a step failed: planted"
    assert engine.pool.held == 0
    assert torch.equal(engine.run([request(prompt, 6)])[0], alone(model, request(prompt, 6)))


def test_numbers_that_are_not_finite_end_their_request_only(model, prompt):
    """A token of one prompt has a broken embedding."""
    broken = deepcopy(model)
    others = [request(varied(prompt, n, 40), 7, n) for n in range(3)]
    wanted = [alone(model, asked) for asked in others]
    used = {token for ids in (prompt, *(asked.prompt_ids for asked in others), *wanted) for token in ids[0].tolist()}
    bad = next(token for token in range(model.config.vocab_size) if token not in used)
    broken.backbone.embed_tokens.weight.data[bad] = torch.nan
    poisoned = prompt.clone()
    poisoned[0, 200:204] = bad
    engine = Engine(broken, 4, 8, page_size=16)
    handles = [engine.submit(asked) for asked in (others[0], request(poisoned, 5), *others[1:])]
    results = [handle.result() for handle in handles]
    assert results.pop(1).reason == "error"
    assert all(torch.equal(result.ids, new) for result, new in zip(results, wanted, strict=True))


def test_weights_that_are_not_finite(model, prompt):
    """Found when they are used: reading all of a large model to look for them would double the time to load it."""
    broken = deepcopy(model)
    broken.patch_decoder.heads[3].weight.data[5] = torch.nan
    with pytest.raises(LanguageModelError, match=r"^the patch decoder's logits are not finite"):
        generate(broken, prompt, 30)
    engine = Engine(broken, 3)
    reasons = {engine.submit(request(varied(prompt, n, 50), 30, n)).result().reason for n in range(3)}
    assert reasons == {"error"}
    broken.backbone.transformer.norm.weight.data[0] = torch.inf
    with pytest.raises(GenerationError, match=r"^the model's text logits are not finite.*torch.float32"):
        generate(broken, prompt, 30)


def test_seeds(model, prompt):
    draws = [generate(model, prompt, 12, text_sampler=WARM, audio_sampler=AUDIO, seed=seed) for seed in (5, 5, 6)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    patches = groups.split(draws[0], 4)
    patches = patches[patches[:, 0, 0] == model.special.empty]
    for channel, empty in enumerate(model.config.speech_zeroemb_idx):
        assert (patches[:, 1 + channel] != empty).all()


def test_top_p_and_top_k_reach_text_and_audio(model, prompt):
    """At a heat where all tokens are alike, a tiny top-p or a top-k of one leaves the largest."""
    greedy = generate(model, prompt, 10)
    hot = Sampler(temperature=50.0)
    for narrow in (Sampler(temperature=50.0, top_p=1e-6), Sampler(temperature=50.0, top_k=1)):
        assert torch.equal(generate(model, prompt, 10, 0, (), narrow, narrow, 4), greedy)
        assert torch.equal(generate(model, prompt, 10, 0, (), GREEDY, narrow, 4), greedy)
        assert not torch.equal(generate(model, prompt, 10, 0, (), GREEDY, hot, 4), greedy)


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


def test_why_a_request_ended(model, prompt):
    engine = Engine(model, 2)
    free = generate(model, prompt, 10)
    stop = int(free[0, 16])
    assert engine.submit(request(prompt, 10, warm=False, stop=(stop,))).result().reason == "stop"
    assert engine.submit(request(prompt, 10)).result().reason == "length"
    result = engine.submit(request(prompt, 10, warm=False, max_patches=1)).result()
    assert result.reason == "length"
    assert result.usage.patches == 1
    assert int(result.ids[0, -4]) == model.special.empty
    cancelled = engine.submit(request(prompt, 400))
    next(cancelled)
    cancelled.cancel()
    assert cancelled.result().reason == "cancelled"
    assert cancelled.result().ids.shape[1] >= 4
    late = engine.submit(request(prompt, 400, deadline=1e-4))
    assert late.result().reason == "deadline"
    guarded = Request(prompt, Limits(400), Sampler(0.8, top_k=1), seed=3, guard=Guard(repeats=2, text=6, patches=6))
    assert engine.submit(guarded).result().reason in ("repetition", "length")
    assert engine.pool.held == 0


def test_a_loop_ends_a_request(model, prompt):
    stuck = deepcopy(model)
    with torch.no_grad():
        stuck.lm_head.weight.zero_()  # all logits are equal: token 0 for ever
    result = Engine(stuck, 1).submit(Request(prompt, Limits(400), guard=Guard())).result()
    if model.special.empty != 0:
        assert result.reason == "repetition"
        assert result.usage.text == 64
    assert Engine(stuck, 1).submit(Request(prompt, Limits(100))).result().reason == "length"
    capped = Request(prompt, Limits(50), guard=Guard(most_patches=2))
    assert Engine(model, 1).submit(capped).result().usage.patches <= 2


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_patches": 0}, "max_patches: expected a number of patches >= 1, got 0"),
        ({"deadline": 0}, "deadline: expected seconds above 0, got 0"),
        ({"deadline": float("nan")}, "deadline: expected seconds above 0, got nan"),
        ({"deadline": True}, "deadline: expected seconds above 0, got True"),
    ],
)
def test_bad_limits(settings, message):
    with pytest.raises(GenerationError, match=f"^{message}"):
        Limits(5, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"slots": 0}, "slots: expected a number >= 1, got 0"),
        ({"pages": 0}, "pages: expected a number >= 1, got 0"),
        ({"page_size": 20}, "page_size: expected a multiple of 16 positions, got 20"),
        ({"queue": -1}, "queue: expected a number >= 0, got -1"),
    ],
)
def test_bad_engines(model, settings, message):
    with pytest.raises(GenerationError, match=f"^{message}"):
        Engine(model, **settings)


def test_what_is_too_long_for_the_pool_is_refused(model, prompt):
    engine = Engine(model, 4, 4, page_size=16)
    with pytest.raises(GenerationError, match=r"may take 65 positions, expected at most 64, .* 4 pages"):
        engine.submit(request(prompt, 12))
    assert engine.run([request(prompt, 11)])[0].shape[1] == 44


def test_a_full_queue_refuses_and_recovers(model, prompt):
    engine = Engine(model, 1, queue=2)
    handles = [engine.submit(request(prompt, 3, n)) for n in range(3)]
    with pytest.raises(QueueFullError, match=r"^[23] requests wait already"):
        engine.submit(request(prompt, 3))
    for n, handle in enumerate(handles):
        assert torch.equal(handle.result().ids, alone(model, request(prompt, 3, n)))
    assert len(engine.run([request(prompt, 2, n) for n in range(9)])) == 9  # as many as it takes, one after another


def test_a_slow_consumer_holds_up_nobody(model, prompt):
    engine = Engine(model, 2)
    slow = engine.submit(request(prompt, 30), buffer=4)
    next(slow)
    assert engine.submit(request(prompt, 20, 1)).result().reason == "length"
    assert len(slow._new) == 5  # one was taken
    assert torch.equal(torch.cat([slow._new[0], *slow], 1), alone(model, request(prompt, 30)))
    paused = engine.submit(request(prompt, 30), buffer=4)
    next(paused)
    assert torch.equal(paused.result().ids, alone(model, request(prompt, 30)))


def test_handles_in_threads_and_in_an_event_loop(model, prompt):
    import asyncio

    engine = Engine(model, 4)
    wanted = [alone(model, request(prompt, 6, n)) for n in range(6)]
    found: dict[int, Tensor] = {}

    def consume(n: int) -> None:
        found[n] = torch.cat(list(engine.submit(request(prompt, 6, n))), 1)

    threads = [threading.Thread(target=consume, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[n], wanted[n]) for n in range(6))

    async def several() -> list[Tensor]:
        async def one(n: int) -> Tensor:
            return torch.cat([group async for group in engine.submit(request(prompt, 6, n))], 1)

        return await asyncio.gather(*(one(n) for n in range(6)))

    assert all(map(torch.equal, asyncio.run(several()), wanted))
    until = time.monotonic() + 10
    while any(thread.name == "mimo-audio-engine" for thread in threading.enumerate()) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(thread.name == "mimo-audio-engine" for thread in threading.enumerate())


def test_usage(model, prompt):
    engine = Engine(model, 1)
    result = engine.submit(request(prompt, 10, 2)).result()
    usage = result.usage
    patches = int((result.ids[0, ::4] == model.special.empty).sum())
    assert (usage.prompt, usage.cached, usage.text, usage.patches) == (54, 0, 10 - patches, patches)
    assert 0 <= usage.queued <= usage.first <= usage.seconds
