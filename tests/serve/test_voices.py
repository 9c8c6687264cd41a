"""`/v1/audio/voices` of a real server."""

import httpx
import pytest


def test_a_voice_comes_speaks_and_goes(http: httpx.Client, sentence: bytes) -> None:
    new = http.post("/v1/audio/voices", data={"name": "sam"}, files={"audio_sample": ("s.wav", sentence)}).json()
    assert new["name"] == "sam"
    assert new["seconds"] == pytest.approx(6.435, abs=0.01)
    listed = http.get("/v1/audio/voices").json()["data"]
    assert [voice["name"] for voice in listed] == ["default", "sam"]
    assert http.get(f"/v1/audio/voices/{new['id']}").json() == new
    body = {"input": "Hello", "response_format": "pcm", "max_seconds": 1}
    sounds = [
        http.post("/v1/audio/speech", json={**body, "voice": voice}).content for voice in ("sam", new["id"], None)
    ]
    assert sounds[0] == sounds[1] != sounds[2]
    body["stream_format"] = "sse"  # its keys and values are kept
    usage = http.post("/v1/audio/speech", json={**body, "voice": {"id": new["id"]}}).text
    assert '"cached_tokens": 0' not in usage
    again = http.post("/v1/audio/voices", data={"name": "sam"}, files={"audio_sample": ("s.wav", sentence)})
    assert again.status_code == 409
    assert http.delete("/v1/audio/voices/sam").json() == {
        "id": new["id"],
        "object": "audio.voice.deleted",
        "deleted": True,
    }
    assert http.delete("/v1/audio/voices/sam").status_code == 404
    assert http.post("/v1/audio/speech", json={**body, "voice": "sam"}).status_code == 404


@pytest.mark.parametrize(
    ("name", "data", "status"),
    [("alloy", None, 409), ("", None, 400), ("\n", None, 400), ("x", b"", 400), ("x", b"RIFF" * 100, 400)],
)
def test_refused(http: httpx.Client, sentence: bytes, name: str, data: bytes | None, status: int) -> None:
    sample = sentence if data is None else data
    answer = http.post("/v1/audio/voices", data={"name": name}, files={"audio_sample": ("s.wav", sample)})
    assert answer.status_code == status
    assert len(http.get("/v1/audio/voices").json()["data"]) == 1
