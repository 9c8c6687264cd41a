"""The realtime session without a server: what each event is answered with, and what the model is asked."""

import base64
from typing import Any

import numpy as np
import pytest

from mimo_audio.serve.realtime.errors import EventError
from mimo_audio.serve.realtime.items import Item, Part, fitted, heard_text, history
from mimo_audio.serve.realtime.session import Spent
from mimo_audio.serve.realtime.sound import RATE
from mimo_audio.serve.realtime.vad import STEP

from .fake_desk import GROUP, PATCH_MS, SILENT, VOICED, Event, Fake, codes, encode_all, encoded, feed


def next_turns(fake: Fake) -> list[tuple[str, str | None, int]]:
    """Role, text and milliseconds of sound in what the model is asked next."""
    assert fake.say("And now?")[-1]["type"] == "conversation.item.done"
    fake.give("response.create")
    answer = fake.made[-1]
    encode_all(answer.items)
    said = history(answer.items, "", True, GROUP)
    return [(t.role, t.text, 0 if t.audio is None else t.audio.shape[1] * 40) for t in said.turns]


ANSWER = (
    "response.created response.output_item.added conversation.item.added response.content_part.added "
    "response.output_audio_transcript.delta response.output_audio.delta output_audio_buffer.started "
    "response.output_audio.done response.output_audio_transcript.done response.content_part.done "
    "response.output_item.done conversation.item.done response.done"
).split()


def test_an_answer_is_the_events_of_the_protocol_in_their_order() -> None:
    fake = Fake()
    assert fake.kinds() == ["session.created", "conversation.created"]
    fake.say()
    events = fake.give("response.create")
    fake.speak(fake.made[0], "Hi there.", 5)
    fake.end(fake.made[0], "Hi there.", 5)
    assert fake.kinds()[4:] == ANSWER
    done = fake.events[-1]["response"]
    assert done["status"] == "completed"
    assert done["output"][0]["content"] == [{"type": "output_audio", "transcript": "Hi there."}]
    assert done["usage"]["total_tokens"] == 18
    assert done["usage"]["input_token_details"] == {"cached_tokens": 4, "text_tokens": 8, "audio_tokens": 2}
    assert events[0]["response"]["id"] == done["id"]
    delta = next(event for event in fake.events if event["type"] == "response.output_audio.delta")
    assert len(base64.b64decode(delta["delta"])) == 2 * 5 * PATCH_MS * RATE // 1000
    for event in fake.events[4:]:
        if ".delta" in event["type"]:
            assert event.keys() >= {"response_id", "item_id", "output_index", "content_index"}
    fake.now += 0.7
    fake.session.tick()
    assert fake.kinds()[-1] == "response.done"  # 800 ms take 800 ms to be heard
    fake.now += 0.1001
    fake.session.tick()
    assert fake.kinds()[-1] == "output_audio_buffer.stopped"


def test_a_written_answer_has_text_events_and_no_sound() -> None:
    fake = Fake()
    fake.say()
    fake.give("response.create", response={"output_modalities": ["text"]})
    fake.session.text(fake.made[0], "Written.")
    fake.session.complete(fake.made[0], "Written.", None, "length", Spent())
    kinds = fake.kinds()
    assert "response.output_text.delta" in kinds
    assert "response.output_text.done" in kinds
    assert not any("audio" in kind for kind in kinds)
    assert fake.events[-1]["response"]["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}


@pytest.mark.parametrize("heard_ms", [0, 100, 160, 500, 799, 800, 1600])
def test_truncation_cuts_what_the_model_is_asked_next_to_what_was_heard(heard_ms: int) -> None:
    fake = Fake()
    fake.say()
    fake.give("response.create")
    answer = fake.made[0]
    text = "one two three four five six seven eight nine ten"
    fake.speak(answer, text, 10)
    fake.end(answer, text, 10)
    events = fake.give("conversation.item.truncate", item_id=answer.item.id, content_index=0, audio_end_ms=heard_ms)
    assert fake.kinds(events) == ["conversation.item.truncated"]
    assert events[0]["audio_end_ms"] == heard_ms
    turns = next_turns(fake)
    patches = heard_ms // PATCH_MS
    if patches == 0:  # nothing was heard of it: the user goes on
        assert turns == [("user", "Hello?\nAnd now?", 0)]
        return
    assert [turn[0] for turn in turns] == ["user", "assistant", "user"]
    assert turns[1][2] == patches * PATCH_MS <= heard_ms
    assert text.startswith(turns[1][1] or "?")
    assert len(turns[1][1] or "") <= max(len("one"), len(text) * patches / 10)
    retrieved = fake.give("conversation.item.retrieve", item_id=answer.item.id)[0]["item"]["content"][0]
    assert len(base64.b64decode(retrieved["audio"])) == heard_ms * RATE // 1000 * 2
    assert retrieved["transcript"] == turns[1][1]


@pytest.mark.parametrize("order", ["truncate first", "codes first"])
def test_an_interrupted_answer_is_cut_to_what_was_sent_and_heard_whenever_its_codes_come(order: str) -> None:
    fake = Fake()
    fake.say()
    fake.give("response.create")
    answer = fake.made[0]
    fake.speak(answer, "one two three four five six", 6)
    events = fake.give("response.cancel")
    assert fake.events[-1]["response"]["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert fake.kinds(events)[-1] == "response.done"
    assert fake.cancelled == [answer]

    def settle() -> None:  # the model had gone on to 9 patches
        fake.end(answer, "one two three four five six seven eight nine", 9, "cancelled")

    if order == "codes first":
        settle()
        assert answer.part.codes is not None
        assert answer.part.codes.shape[1] == 6 * GROUP
    fake.give("conversation.item.truncate", item_id=answer.item.id, content_index=0, audio_end_ms=500)
    if order == "truncate first":
        settle()
    assert fake.kinds()[-1] == "conversation.item.truncated"  # what comes late is not told
    turns = next_turns(fake)
    assert turns[1][2] == 480
    assert turns[1][1] == "one two"  # of 500 ms nobody speaks more than nine letters


def test_sound_that_a_slow_client_has_not_taken_was_not_heard() -> None:
    fake = Fake()
    fake.say()
    fake.give("response.create")
    answer = fake.made[0]
    fake.speak(answer, "one two three", 2)
    fake.slow = True
    fake.speak(answer, " four five", 4)
    fake.give("response.cancel")
    fake.end(answer, "one two three four five", 6, "cancelled")
    assert next_turns(fake)[1][2] == 2 * PATCH_MS


def test_clearing_the_output_cuts_to_what_can_have_been_played() -> None:
    fake = Fake()
    fake.say()
    assert fake.give("output_audio_buffer.clear")[0]["error"]["code"] == "output_audio_buffer_empty"
    fake.give("response.create")
    answer = fake.made[0]
    fake.speak(answer, "one two three four five six seven eight", 20)
    fake.now += 0.9
    events = fake.give("output_audio_buffer.clear")
    assert fake.kinds(events)[-3:] == ["response.done", "output_audio_buffer.cleared", "conversation.item.truncated"]
    assert abs(events[-1]["audio_end_ms"] - 900) <= 1
    fake.end(answer, "one two three four five six seven eight", 22, "cancelled")
    assert next_turns(fake)[1][2] == 800


def test_speech_becomes_a_turn_that_is_answered_and_interrupts() -> None:
    fake = Fake()
    feed(fake, (SILENT, 40), (VOICED, 30), (SILENT, 20))
    kinds = fake.kinds()[2:]
    assert kinds[:5] == [
        "input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped", "input_audio_buffer.committed",
        "conversation.item.added", "conversation.item.done",
    ]  # fmt: skip
    assert kinds[5] == "response.created"
    started, stopped, committed = fake.events[2:5]
    assert started["audio_start_ms"] == 40 * 32 - 300
    assert stopped["audio_end_ms"] == (40 + 30 + 16) * 32  # 500 ms of silence are 16 windows
    assert started["item_id"] == stopped["item_id"] == committed["item_id"] == fake.session.items[0].id
    wave = fake.session.items[0].parts[0].wave
    assert len(wave) == 300 * 24 + (30 + 16) * STEP
    assert (wave[300 * 24 :][: 30 * STEP] == np.float32(VOICED)).all()
    answer = fake.made[0]
    fake.speak(answer, "one two three", 10)
    feed(fake, (VOICED, 1))
    assert fake.session.answer is answer  # a click is no interruption
    feed(fake, (VOICED, 1))
    assert fake.events[-1]["response"]["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert fake.cancelled == [answer]


def test_silence_is_not_kept() -> None:
    fake = Fake()
    feed(fake, (SILENT, 3000))
    assert fake.session._end - fake.session._start < RATE
    assert fake.kinds() == ["session.created", "conversation.created"]


def test_a_turn_without_end_is_ended_at_the_limit() -> None:
    fake = Fake()
    feed(fake, (VOICED, 30 * 32))
    assert "input_audio_buffer.speech_stopped" in fake.kinds()
    assert fake.session.items[0].parts[0].samples <= 30.1 * RATE


@pytest.mark.parametrize("interrupt", [False, True])
def test_what_is_said_during_an_answer_is_answered_after_it(interrupt: bool) -> None:
    fake = Fake()
    detection = {"type": "server_vad", "interrupt_response": interrupt, "silence_duration_ms": 200}
    fake.give("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": detection}}})
    feed(fake, (VOICED, 10), (SILENT, 10))
    answer = fake.made[0]
    fake.speak(answer, "one", 3)
    feed(fake, (VOICED, 10), (SILENT, 10))
    assert len(fake.made) == 1 + interrupt
    fake.end(answer, "one", 3, "cancelled" if interrupt else "stop")
    assert len(fake.made) == 2
    encode_all(fake.made[1].items)
    roles = [turn.role for turn in history(fake.made[1].items, "", True, GROUP).turns]
    assert roles[-1] == "user"


def test_long_silence_is_answered_if_asked_for() -> None:
    fake = Fake()
    detection = {"type": "server_vad", "idle_timeout_ms": 5000}
    fake.give("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": detection}}})
    fake.say()
    fake.give("response.create")
    fake.speak(fake.made[0], "one", 10)
    fake.end(fake.made[0], "one", 10)
    feed(fake, (SILENT, 60))
    for seconds, expected in ((6.5, 1), (0.2, 2), (20.0, 2)):
        fake.now += seconds
        fake.session.tick()
        assert len(fake.made) == expected
    kinds = fake.kinds()
    assert kinds.index("input_audio_buffer.timeout_triggered") < kinds.index("input_audio_buffer.committed")


def test_commit_and_clear_by_hand() -> None:
    fake = Fake(detection=None)
    error = fake.give("input_audio_buffer.commit", event_id="mine")[0]["error"]
    assert error["code"] == "input_audio_buffer_commit_empty"
    assert error["event_id"] == "mine"
    assert fake.give("input_audio_buffer.append", audio=encoded(300)) == []
    assert fake.kinds(fake.give("input_audio_buffer.clear")) == ["input_audio_buffer.cleared"]
    assert fake.give("input_audio_buffer.commit")[0]["type"] == "error"
    fake.give("input_audio_buffer.append", audio=encoded(300))
    fake.give("input_audio_buffer.append", audio=encoded(200))
    events = fake.give("input_audio_buffer.commit")
    assert fake.kinds(events) == ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]
    assert fake.session.items[0].parts[0].samples == 500 * 24
    assert fake.made == []  # nobody has asked yet
    for _ in range(29):
        fake.give("input_audio_buffer.append", audio=encoded(1000))
    assert fake.give("input_audio_buffer.append", audio=encoded(1001))[0]["error"]["code"] == "buffer_full"


def test_items_are_inserted_retrieved_and_deleted() -> None:
    fake = Fake()
    fake.say("first")
    content = [{"type": "input_text", "text": "zeroth"}]
    item = {"type": "message", "id": "mine", "role": "user", "content": content}
    events = fake.give("conversation.item.create", item=item, previous_item_id="root")
    assert events[0]["previous_item_id"] is None
    assert [i.parts[0].text for i in fake.session.items] == ["zeroth", "first"]
    assert fake.give("conversation.item.create", item=item)[0]["error"]["param"] == "item.id"
    assert fake.give("conversation.item.retrieve", item_id="mine")[0]["item"]["content"] == content
    assert fake.kinds(fake.give("conversation.item.delete", item_id="mine")) == ["conversation.item.deleted"]
    assert fake.give("conversation.item.retrieve", item_id="mine")[0]["error"]["code"] == "item_not_found"


def test_settings_change_and_are_shown() -> None:
    fake = Fake()
    update = {
        "type": "realtime",
        "instructions": "Be brief.",
        "max_output_tokens": 50,
        "output_modalities": ["text"],
        "audio": {
            "input": {
                "format": {"type": "audio/pcmu"},
                "transcription": {"model": "whisper-1"},
                "turn_detection": None,
            },
            "output": {"voice": {"id": "other"}, "format": {"type": "audio/pcma"}, "speed": 1},
        },
        "truncation": {"type": "retention_ratio", "retention_ratio": 0.5},
        "tools": [],
        "tracing": None,
    }
    shown = fake.give("session.update", session=update)[0]["session"]
    assert {key: shown[key] for key in ("instructions", "max_output_tokens", "output_modalities")} == {
        key: update[key] for key in ("instructions", "max_output_tokens", "output_modalities")
    }
    assert shown["audio"]["output"] == {"voice": "other", "format": {"type": "audio/pcma"}, "speed": 1.0}
    assert shown["audio"]["input"]["turn_detection"] is None
    assert shown["audio"]["input"]["format"] == {"type": "audio/pcmu"}
    assert shown["truncation"]["retention_ratio"] == 0.5
    fake.give("input_audio_buffer.append", audio=base64.b64encode(b"\xff" * 8000).decode())
    fake.give("input_audio_buffer.commit")
    assert abs(fake.session.items[0].parts[0].samples - RATE) < 600  # a second, less what the resampler holds
    assert fake.heard == fake.session.items
    fake.session.transcribed(fake.heard[0], "hel")
    fake.session.transcribed(fake.heard[0], None, "hello")
    assert fake.kinds()[-2:] == [
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
    ]
    assert fake.session.items[0].shown()["content"][0]["transcript"] == "hello"


BAD: list[tuple[Event, str]] = [
    ({"type": "nonsense"}, "expected one of session.update"),
    ({}, "type: expected one of"),
    ({"type": "response.cancel"}, "response_id: expected that of an answer in the making"),
    ({"type": "response.cancel", "extra": 1}, "event.extra: unknown"),
    ({"type": "response.create"}, "there is nothing to answer"),
    ({"type": "session.update"}, "session: expected an object, got None"),
    ({"type": "session.update", "session": {"voice": "x"}}, "session.voice: unknown"),
    ({"type": "session.update", "session": {"tools": [{}]}}, "session.tools: this model calls no tools"),
    ({"type": "session.update", "session": {"output_modalities": ["text", "audio"]}}, "output_modalities: expected"),
    ({"type": "session.update", "session": {"max_output_tokens": 0}}, "an integer from 1 to 4096, got 0"),
    ({"type": "session.update", "session": {"audio": {"output": {"voice": "nobody"}}}}, "no voice 'nobody'"),
    ({"type": "session.update", "session": {"audio": {"output": {"speed": 2}}}}, "its own pace"),
    (
        {"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 8000}}}}},
        "format.rate: expected 24000 for audio/pcm, got 8000",
    ),
    (
        {"type": "session.update", "session": {"audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}}},
        "expected server_vad or null",
    ),
    (
        {"type": "session.update", "session": {"audio": {"input": {"turn_detection": {"threshold": 2}}}}},
        "threshold: expected a number from 0 to 1, got 2",
    ),
    (
        {"type": "session.update", "session": {"audio": {"output": {"format": {"type": ["audio/pcm"]}}}}},
        "format.type: expected audio/pcm or audio/pcmu or audio/pcma, got ['audio/pcm']",
    ),
    ({"type": "input_audio_buffer.append", "audio": "%%%"}, "audio: expected valid base64"),
    ({"type": "input_audio_buffer.append", "audio": 5}, "audio: expected base64 sound, got 5"),
    ({"type": "conversation.item.retrieve", "item_id": "x"}, "item_id: expected an item of the conversation, got 'x'"),
    ({"type": "conversation.item.delete"}, "item_id: expected an item"),
    ({"type": "conversation.item.truncate", "item_id": "x"}, "item_id: expected an item"),
    ({"type": "conversation.item.create", "item": {"type": "function_call"}}, "item.type: expected message"),
    ({"type": "conversation.item.create", "item": {"role": "user"}}, "item.content: expected a list of 1 to 16 parts"),
    (
        {"type": "conversation.item.create", "item": {"role": "user", "content": [{"type": "input_image"}]}},
        "sees no images",
    ),
    (
        {"type": "conversation.item.create", "item": {"role": "user", "content": [{"type": "input_text"}]}},
        r"content[0].text: expected a string",
    ),
    (
        {
            "type": "conversation.item.create",
            "item": {"role": "user", "content": [{"type": "input_text", "text": "\ud800"}]},
        },
        "expected valid Unicode",
    ),
    ({"type": "output_audio_buffer.clear"}, "no answer is being played"),
]


@pytest.mark.parametrize(("event", "message"), BAD, ids=[f"{i}" for i in range(len(BAD))])
def test_what_cannot_be_done_is_said_and_changes_nothing(event: Event, message: str) -> None:
    fake = Fake()
    before = fake.session.settings, list(fake.session.items)
    fake.session.receive({**event, "event_id": "mine"})
    (answer,) = fake.events[2:]
    assert answer["type"] == "error"
    assert message in answer["error"]["message"]
    assert answer["error"]["event_id"] == "mine"
    assert answer["error"]["type"] == "invalid_request_error"
    assert (fake.session.settings, fake.session.items) == before


def test_a_response_may_have_its_own_input_and_be_kept_out() -> None:
    fake = Fake()
    fake.say("in the conversation")
    mine = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "apart"}]}
    reference = {"type": "item_reference", "id": fake.session.items[0].id}
    given = {"conversation": "none", "input": [reference, mine], "metadata": {"a": "b"}, "instructions": "Be brief."}
    events = fake.give("response.create", response=given)
    assert "conversation.item.added" not in fake.kinds(events)
    answer = fake.made[0]
    fake.speak(answer, "one", 1)
    fake.end(answer, "one", 1)
    done = fake.events[-1]["response"]
    assert done["conversation_id"] is None
    assert done["metadata"] == {"a": "b"}
    assert len(fake.session.items) == 1
    said = history(answer.items, answer.settings.instructions, True, GROUP)
    assert said.system == "Be brief."
    assert [turn.text for turn in said.turns] == ["in the conversation\napart"]


def test_instructions_alone_can_be_answered() -> None:
    fake = Fake()
    fake.give("response.create", response={"instructions": "Greet the user."})
    said = history(fake.made[0].items, fake.made[0].settings.instructions, True, GROUP)
    assert [(turn.role, turn.text) for turn in said.turns] == [("user", "Greet the user.")]
    assert said.system is None


def test_written_answers_are_given_the_words_of_spoken_ones() -> None:
    items = [
        Item("system", [Part("input_text", "Be kind.")]),
        Item("user", [Part("input_audio", codes=codes(3))]),
        Item("assistant", [Part("output_audio", "Yes.", codes=codes(2))]),
        Item("user", [Part("input_text", "Why?")]),
    ]
    said = history(items, "Be brief.", False, GROUP)
    assert said.system is None
    assert [(t.role, t.text, t.audio is not None) for t in said.turns] == [
        ("user", "Be brief.\nBe kind.", True),
        ("assistant", "Yes.", False),
        ("user", "Why?", False),
    ]
    assert history(items, "Be brief.", True, GROUP).system == "Be brief.\nBe kind."


def test_the_oldest_turns_are_left_out_where_the_context_ends() -> None:
    turns = [Item("user" if n % 2 == 0 else "assistant", [Part("input_text", "x" * 10)]) for n in range(7)]
    said = history(turns, "", True, GROUP)

    def positions(turn: Any) -> int:
        return len(turn.text)

    assert fitted(said, positions, 70, 1.0) is said
    assert len(fitted(said, positions, 69, 1.0).turns) == 5
    assert len(fitted(said, positions, 69, 0.5).turns) == 3
    for room, retention in ((69, None), (9, 1.0)):
        with pytest.raises(EventError, match="the conversation takes 70 tokens, expected at most"):
            fitted(said, positions, room, retention)


@pytest.mark.parametrize(
    ("text", "share", "seconds", "heard"),
    [
        ("one two three", 1.0, 1.0, "one two three"),
        ("one two three", 0.0, 0.0, ""),
        ("one two three", 0.5, 9.0, "one"),
        ("one two three", 0.6, 9.0, "one two"),
        ("one two three", 0.01, 9.0, "one"),
        ("one two three four five six", 0.99, 0.5, "one two"),  # so fast speaks nobody
        ("今天天气很好", 0.5, 9.0, "今天天"),
        ("今天天气很好", 0.9, 0.4, "今天"),
    ],
)
def test_words_are_cut_with_their_sound(text: str, share: float, seconds: float, heard: str) -> None:
    assert heard_text(text, share, seconds) == heard


def test_every_server_event_is_one_of_the_official_client_s() -> None:
    types = pytest.importorskip("openai.types.realtime", reason="the package openai is not installed")
    from pydantic import TypeAdapter

    fake = Fake()
    fake.give("session.update", session={"type": "realtime", "audio": {"input": {"transcription": {"model": "m"}}}})
    feed(fake, (VOICED, 10), (SILENT, 20))
    fake.session.transcribed(fake.heard[0], "x")
    fake.session.transcribed(fake.heard[0], None, "x")
    fake.session.transcribed(fake.heard[0], None, error="no")
    fake.speak(fake.made[0], "one", 3)
    feed(fake, (VOICED, 10), (SILENT, 20))
    fake.speak(fake.made[1], "one", 3)
    fake.end(fake.made[1], "one", 3, "repetition")
    fake.give("conversation.item.retrieve", item_id=fake.session.items[1].id)
    fake.give("conversation.item.truncate", item_id=fake.session.items[1].id, content_index=0, audio_end_ms=10)
    fake.give("conversation.item.delete", item_id=fake.session.items[0].id)
    fake.say()
    fake.give("response.create", response={"output_modalities": ["text"]})
    fake.session.text(fake.made[2], "x")
    fake.session.fail(fake.made[2], "no")
    fake.give("input_audio_buffer.clear")
    fake.give("nonsense")
    fake.now += 100
    fake.session.tick()
    adapter: TypeAdapter[Any] = TypeAdapter(types.RealtimeServerEvent)
    for event in fake.events:
        parsed = adapter.validate_python(event, strict=True)
        assert type(parsed).__name__ != "ConversationItemCreatedEvent"
        assert not getattr(parsed, "model_extra", None), (event["type"], parsed.model_extra)
    assert len(set(fake.kinds())) >= 25
