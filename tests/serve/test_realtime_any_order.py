"""Any client and any model: what holds whatever is sent, in whatever order."""

import itertools
import json
from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mimo_audio.serve.realtime.items import history
from mimo_audio.serve.realtime.session import EVENTS
from mimo_audio.serve.realtime.sound import RATE

from .fake_desk import FRAME, GROUP, SILENT, VOICED, Event, Fake, encode_all, encoded, feed


class Dialogue(RuleBasedStateMachine):
    """Any client, any model: events in any order, and what has to hold all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.fake = Fake()
        self.heard: dict[str, int] = {}  # the most milliseconds of each answer that a client can have heard
        self.whole: dict[str, tuple[str, int]] = {}  # cancelled answers whose codes are to come
        self.names = itertools.count()

    def _ids(self) -> list[str]:
        return [item.id for item in self.fake.session.items] + ["nobody"]

    @rule(kind=st.sampled_from(sorted(EVENTS)), data=st.data())
    def any_event(self, kind: str, data: st.DataObject) -> None:
        given: Event = {}
        for name in EVENTS[kind][0]:
            if data.draw(st.booleans()):
                given[name] = data.draw(
                    st.one_of(st.none(), st.integers(-5, 5000), st.sampled_from(self._ids()), st.just(encoded(200)))
                )
        before = len(self.fake.events)
        self.fake.session.receive({"type": kind, **given})
        if kind != "input_audio_buffer.append":
            assert len(self.fake.events) > before  # every event is answered

    @rule(windows=st.lists(st.sampled_from([SILENT, VOICED]), min_size=1, max_size=40))
    def somebody_speaks_or_not(self, windows: list[float]) -> None:
        feed(self.fake, *((probability, 1) for probability in windows))

    @rule()
    def says(self) -> None:
        self.fake.say(f"turn {next(self.names)}")

    @rule(interrupt=st.booleans(), create=st.booleans(), on=st.booleans())
    def settings(self, interrupt: bool, create: bool, on: bool) -> None:
        detection = {"type": "server_vad", "interrupt_response": interrupt, "create_response": create}
        given = {"type": "realtime", "audio": {"input": {"turn_detection": detection if on else None}}}
        assert self.fake.give("session.update", session=given)[0]["type"] == "session.updated"

    @rule()
    def asks(self) -> None:
        self.fake.give("response.create")

    @precondition(lambda self: self.fake.session.answer is not None)
    @rule(patches=st.integers(0, 12), slow=st.booleans())
    def the_model_goes_on(self, patches: int, slow: bool) -> None:
        answer = self.fake.session.answer
        assert answer is not None
        self.fake.slow = slow
        self.fake.speak(answer, "word " * patches, patches)

    @precondition(lambda self: self.fake.session.answer is not None)
    @rule(reason=st.sampled_from(["stop", "length", "repetition", "fail"]))
    def the_model_ends(self, reason: str) -> None:
        answer = self.fake.session.answer
        assert answer is not None
        self.fake.unsent = []  # all is taken in the end
        if reason == "fail":
            self.fake.session.fail(answer, "it failed")
        else:
            self.fake.end(answer, answer.part.text or "word", answer.samples // (GROUP * FRAME), reason)

    @rule(more=st.integers(0, 20))
    def codes_of_cancelled_answers_come(self, more: int) -> None:
        for answer in self.fake.cancelled:
            patches = answer.samples // (GROUP * FRAME) + more
            told = len(self.fake.events)
            self.fake.speak(answer, "late", 1)
            assert len(self.fake.events) == told
            self.fake.end(answer, "word " * patches, patches, "cancelled")
        self.fake.cancelled = []

    @precondition(lambda self: any(i.parts[0].kind == "output_audio" for i in self.fake.session.items))
    @rule(data=st.data())
    def truncates(self, data: st.DataObject) -> None:
        answers = [item for item in self.fake.session.items if item.parts[0].kind == "output_audio"]
        item = data.draw(st.sampled_from(answers))
        end = data.draw(st.integers(0, item.parts[0].samples * 1000 // RATE))
        events = self.fake.give("conversation.item.truncate", item_id=item.id, content_index=0, audio_end_ms=end)
        slow = item.parts[0].samples * 1000 // RATE < end  # the rest was not on its way yet
        assert events[-1]["type"] == "conversation.item.truncated" or slow
        self.heard[item.id] = min(end, self.heard.get(item.id, end))

    @rule(seconds=st.floats(0.01, 5))
    def time_goes_by(self, seconds: float) -> None:
        self.fake.now += seconds
        self.fake.session.tick()

    @invariant()
    def event_ids_are_in_order(self) -> None:
        ids = [event["event_id"] for event in self.fake.events]
        assert ids == sorted(set(ids))

    @invariant()
    def answers_begin_once_and_end_once(self) -> None:
        ended = Counter[str]()
        begun = Counter[str]()
        for event in self.fake.events:
            kind = event["type"]
            identity = event.get("response_id") or event.get("response", {}).get("id")
            if kind == "response.created":
                begun[identity] += 1
            elif kind == "response.done":
                ended[identity] += 1
            elif identity and kind.startswith("response."):
                assert begun[identity] == 1
                assert ended[identity] == 0, f"{kind} after the end"
        active = self.fake.session.answer
        expected = Counter({identity: 1 for identity in begun if active is None or identity != active.id})
        assert ended == expected

    @invariant()
    def the_model_is_told_what_was_heard_and_no_more(self) -> None:
        for item in self.fake.session.items:
            part = item.parts[0]
            if part.kind != "output_audio" or (self.fake.session.answer and self.fake.session.answer.item is item):
                continue
            sent = part.samples * 1000 // RATE
            assert sent <= self.heard.get(item.id, sent)
            if part.codes is not None:
                assert part.codes.shape[1] * 40 <= sent

    @invariant()
    def what_is_asked_can_be_asked(self) -> None:
        session = self.fake.session
        if session.answer is not None:
            encode_all(session.answer.items)
            roles = [turn.role for turn in history(session.answer.items, "", True, GROUP).turns]
            assert roles[-1] == "user"
            assert all(a != b for a, b in itertools.pairwise(roles))


Dialogue.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestDialogue = Dialogue.TestCase


NAMES = sorted(
    {
        *("type", "session", "response", "item", "audio", "input", "output", "format", "rate", "voice", "id", "speed"),
        *("turn_detection", "threshold", "idle_timeout_ms", "prefix_padding_ms", "transcription", "language", "model"),
        *("truncation", "retention_ratio", "token_limits", "post_instructions", "instructions", "output_modalities"),
        *("max_output_tokens", "tools", "tool_choice", "content", "role", "text", "transcript", "metadata", "event_id"),
        *("conversation", "item_id", "content_index", "audio_end_ms", "previous_item_id", "response_id"),
    }
)
WORDS = [
    "realtime",
    "transcription",
    "audio/pcm",
    "audio/pcmu",
    "server_vad",
    "semantic_vad",
    "message",
    "user",
    "root",
]
WORDS += [
    "assistant",
    "system",
    "input_text",
    "input_audio",
    "output_audio",
    "auto",
    "disabled",
    "none",
    "retention_ratio",
]
ANYTHING = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from(WORDS),
        st.just(encoded(20)), st.just("\ud800"),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(sorted(EVENTS)), data=st.data())
def test_whatever_a_client_sends_is_answered(kind: str, data: st.DataObject) -> None:
    fake = Fake(detection=None)
    fake.say()
    values = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys((*EVENTS[kind][0], "event_id"), ANYTHING)))
    if kind == "session.update" and isinstance(values.get("session"), dict):  # deeper than chance would get
        inner = st.fixed_dictionaries(
            {}, optional=dict.fromkeys(("format", "turn_detection", "transcription"), ANYTHING)
        )
        values["session"] = {**values["session"], "audio": {"input": data.draw(inner)}}
    before = len(fake.events)
    fake.session.receive({**values, "type": kind})
    assert len(fake.events) > before or kind == "input_audio_buffer.append"
    json.dumps(fake.events)
