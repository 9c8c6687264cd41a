"""`/v1/audio/voices`: the voices there are, new ones from recordings, and their end."""

from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, UploadFile

from mimo_audio.serve.endpoints.common import ServiceOf
from mimo_audio.serve.errors import ServeError, bad
from mimo_audio.serve.responses import answer_while_there
from mimo_audio.serve.service import Service
from mimo_audio.serve.uploads import check_size
from mimo_audio.serve.voices import ALIASES, OWN, StoredVoice

router = APIRouter(prefix="/v1/audio/voices", tags=["voices"])

MOST_BYTES, LEAST_SECONDS, MOST_SECONDS = 10 << 20, 0.5, 30.0


@router.get("")
async def voices(service: ServiceOf) -> dict[str, Any]:
    """The model's own voice, and those of recordings."""
    own = {"id": OWN, "name": OWN, "object": "audio.voice", "aliases": list(ALIASES)}
    return {"object": "list", "data": [own, *map(_described, service.voices)]}


@router.post("")
async def upload(
    request: Request,
    service: ServiceOf,
    name: Annotated[str, Form(min_length=1, max_length=100)],
    audio_sample: Annotated[UploadFile, File(description="half a second to half a minute of one speaker, 10 MB")],
    consent: Annotated[str | None, Form(description="not checked: whose voice it is must have agreed")] = None,
) -> dict[str, Any]:
    """A new voice. Its codes are kept, and what the model computes of them."""
    if not name.strip() or not name.isprintable():
        raise bad("name", f"expected a name, got {name!r:.80}")
    data = check_size(await audio_sample.read(), min(MOST_BYTES, service.limits.upload_bytes), "audio_sample")
    return await answer_while_there(request, _add(service, name.strip(), data))


async def _add(service: Service, name: str, data: bytes) -> dict[str, Any]:
    wave = await service.decode(data, "audio_sample", MOST_SECONDS)
    seconds = len(wave) / service.model.sample_rate
    if seconds < LEAST_SECONDS:
        raise bad("audio_sample", f"expected at least {LEAST_SECONDS} s, got {seconds:.2f} s")
    voice = service.voices.add(name, await service.encode(wave, "audio_sample"), seconds)
    with suppress(ServeError):  # its keys and values are there when the first text comes
        async with service.open("speak", ".", voice.codes, max_new=1) as answer:
            async for _ in answer:
                pass
    return _described(voice)


@router.get("/{voice}")
async def get(voice: str, service: ServiceOf) -> dict[str, Any]:
    """A voice by name or id."""
    return _described(service.voices.get(voice))


@router.delete("/{voice}")
async def delete(voice: str, service: ServiceOf) -> dict[str, Any]:
    """Forgets a voice, by name or id."""
    return {"id": service.voices.remove(voice).id, "object": "audio.voice.deleted", "deleted": True}


def _described(voice: StoredVoice) -> dict[str, Any]:
    return {
        "id": voice.id,
        "name": voice.name,
        "object": "audio.voice",
        "created_at": voice.created,
        "seconds": round(voice.seconds, 3),
    }
