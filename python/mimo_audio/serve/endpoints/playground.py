"""`/v1/playground`: what the web page needs beside the public endpoints. Recordings come as files of a form.

Questions about a recording, few-shot conversion and the codec's round trip have no endpoint of OpenAI's.
"""

import base64
import time
from importlib.resources import files
from typing import Annotated, Any

import numpy as np
import torch
from fastapi import APIRouter, File, Form, Request, UploadFile
from starlette.responses import Response
from torch import Tensor

from mimo_audio.files.pcm import pcm, wav_header
from mimo_audio.serve.endpoints.common import ServiceOf, usage_of
from mimo_audio.serve.errors import ServeError, bad
from mimo_audio.serve.responses import answer_while_there
from mimo_audio.serve.service import Service
from mimo_audio.serve.uploads import check_size
from mimo_audio.tasks.model import CONVERT, MimoAudio

router = APIRouter(prefix="/v1/playground", tags=["playground"])

SMALL = 100e6  # parameters, below which a model shows how things work and not what they can be
MOST_PAIRS = 16
MOST_CODEC_SECONDS = 60.0
DARKEST, BRIGHTEST = -11.5, 2.5  # log-mel magnitudes that the pictures range over


@router.get("/model")
async def describe(service: ServiceOf) -> dict[str, Any]:
    """What runs, and what it can and cannot do, in words."""
    if not service.ready:
        return {"name": service.name, "state": service.state, "reason": service.reason}
    model = service.model
    config, tokenizer = model.language_model.config, model.audio_tokenizer
    parameters = sum(p.numel() for p in model.language_model.parameters())
    return {
        "name": service.name,
        "state": service.state,
        "parameters": parameters,
        "tokenizer_parameters": sum(p.numel() for p in tokenizer.parameters()),
        "device": str(tokenizer.device),
        "sample_rate": model.sample_rate,
        "codebooks": config.audio_channels,
        "all_codebooks": len(tokenizer.config.codebook_size),
        "frame_rate": tokenizer.config.frame_rate,
        "context_seconds": model.most_seconds,
        "slots": model.slots,
        "most_audio_seconds": min(service.limits.audio_seconds, model.most_seconds),
        "most_text": service.limits.text,
        "small": parameters < SMALL,
        **words(service.name, parameters),
    }


def words(name: str, parameters: int) -> dict[str, Any]:
    """A sentence on the model, what it can do and what it cannot."""
    can = [
        "listen to speech and answer with speech, in its own voice or in that of a recording",
        "be interrupted, and then remember only what you heard",
        "transcribe, speak a text in a style put in words, answer questions about a recording",
    ]
    cannot = ["call tools or see images", "speak languages other than English and Chinese", "speak at another speed"]
    if parameters >= SMALL:
        size = f"{parameters / 1e9:.1f} billion parameters"
        return {"about": f"{name}: a language model of {size}, with its audio tokenizer.", "can": can, "cannot": cannot}
    about = (
        f"{name}: a model of {parameters / 1e6:.1f} million parameters (the released one has 7,000). It shows that "
        "everything here works, quickly and without a GPU; what it says is not worth hearing for its own sake."
    )
    can = [
        'write down and say short commands in English ("Call bob at eight after lunch."), with some wrong words',
        "say them in its own voice",
        "show how talking, interrupting and streams work",
    ]
    cannot = [
        "answer questions or hold a conversation that makes sense",
        "follow styles, instructions, examples or the voice of a recording",
        *cannot,
    ]
    return {"about": about, "can": can, "cannot": cannot}


@router.get("/example")
async def example() -> Response:
    """A recording to try things with: a sentence, WAV."""
    return Response((files("mimo_audio") / "assets" / "sentence.wav").read_bytes(), media_type="audio/wav")


@router.post("/understand")
async def understand(
    request: Request,
    service: ServiceOf,
    file: Annotated[UploadFile, File()],
    question: Annotated[str, Form(min_length=1)],
    thinking: Annotated[bool, Form()] = False,
    seed: Annotated[int, Form(ge=0, lt=2**63)] = 0,
) -> dict[str, Any]:
    """The answer to a question about a recording, with the thought before it if asked for."""
    _check_text(service, "question", question)
    wave = await _wave(service, file, "file")
    return await answer_while_there(request, _understand(service, wave, question, thinking, seed))


async def _understand(service: Service, wave: Tensor, question: str, thinking: bool, seed: int) -> dict[str, Any]:
    began = time.perf_counter()
    async with service.open("understand", wave, question, thinking=thinking, seed=seed) as answer:
        async for _ in answer:
            pass
    done = _completed(answer.completed)
    said = {"text": done.result.text, "thought": done.result.thought, "finish_reason": done.result.stats.reason}
    return {**said, "usage": usage_of(done), "seconds": round(time.perf_counter() - began, 3)}


@router.post("/convert")
async def convert(
    request: Request,
    service: ServiceOf,
    query: Annotated[UploadFile, File(description="what is to be changed as the examples were")],
    before: Annotated[list[UploadFile], File(description="recordings")],
    after: Annotated[list[UploadFile], File(description="the same recordings, changed, in the same order")],
    text: Annotated[list[str], Form(description="what each of the changed ones says")],
    instruction: Annotated[str, Form(min_length=1)] = CONVERT,
    seed: Annotated[int, Form(ge=0, lt=2**63)] = 0,
) -> dict[str, Any]:
    """Few-shot conversion: the query changed as the examples show."""
    if not len(before) == len(after) == len(text) <= MOST_PAIRS:
        counts = f"{len(before)}, {len(after)} and {len(text)}"
        raise bad(
            "before", f"expected as many recordings before and after as texts, at most {MOST_PAIRS}, got {counts}"
        )
    for index, said in enumerate([instruction, *text]):
        _check_text(service, f"text[{index - 1}]" if index else "instruction", said)
    sounds = [await _wave(service, file, f"before[{i}]") for i, file in enumerate(before)]
    changed = [await _wave(service, file, f"after[{i}]") for i, file in enumerate(after)]
    wave = await _wave(service, query, "query")
    examples = list(zip(sounds, changed, text, strict=True))
    return await answer_while_there(request, _convert(service, examples, wave, instruction, seed))


async def _convert(
    service: Service, examples: list[tuple[Tensor, Tensor, str]], query: Tensor, instruction: str, seed: int
) -> dict[str, Any]:
    began = time.perf_counter()
    async with service.open("convert", examples, query, instruction, seed=seed, chunks="throughput") as answer:
        async for _ in answer:
            pass
    done = _completed(answer.completed)
    return {
        "text": done.result.text,
        "audio": wav(done.result.wave, done.result.sample_rate),
        "audio_seconds": round(done.result.duration, 3),
        "finish_reason": done.result.stats.reason,
        "usage": usage_of(done),
        "seconds": round(time.perf_counter() - began, 3),
    }


@router.post("/codec")
async def codec(
    request: Request,
    service: ServiceOf,
    file: Annotated[UploadFile, File()],
    codebooks: Annotated[int | None, Form(ge=1)] = None,
) -> dict[str, Any]:
    """A recording through the audio tokenizer and back: the sound, both mel pictures, and how much was kept."""
    most = len(service.model.audio_tokenizer.config.codebook_size)
    if codebooks is not None and codebooks > most:
        raise bad("codebooks", f"expected at most {most}, got {codebooks}")
    wave = await _wave(service, file, "file")
    most_samples = int(MOST_CODEC_SECONDS * service.model.sample_rate)
    if len(wave) > most_samples:
        raise bad(
            "file", f"expected at most {MOST_CODEC_SECONDS:.0f} s, got {len(wave) / service.model.sample_rate:.0f} s"
        )
    work = service.read(lambda: round_trip(service.model, wave, codebooks or service.model.prompts.layout.channels))
    return await answer_while_there(request, work)


@torch.no_grad()
def round_trip(model: MimoAudio, wave: Tensor, codebooks: int) -> dict[str, Any]:
    """wave [N] at the model's rate -> what the tokenizer makes of it."""
    tokenizer, rate = model.audio_tokenizer, model.sample_rate
    began = time.perf_counter()
    codes = tokenizer.encode(wave, n_q=codebooks)
    encoded = time.perf_counter()
    back = tokenizer.decode(codes).cpu().flatten()[: len(wave)]
    decoded = time.perf_counter()
    bits = sum(np.log2(size) for size in tokenizer.config.codebook_size[:codebooks]) * tokenizer.config.frame_rate
    seconds = len(wave) / rate
    before, after = (tokenizer.log_mel(sound.to(tokenizer.device)).cpu() for sound in (wave, back))
    frames = min(len(before), len(after))
    return {
        "audio": wav(back, rate),
        "audio_seconds": round(seconds, 3),
        "codebooks": codebooks,
        "frames": codes.shape[1],
        "bits_per_second": round(bits),
        "encode_seconds": round(encoded - began, 4),
        "decode_seconds": round(decoded - encoded, 4),
        "mel_distance": round(float((before[:frames] - after[:frames]).abs().mean()), 4),
        "before": picture(before),
        "after": picture(after),
    }


def picture(mel: Tensor) -> dict[str, Any]:
    """Log-mel frames [T, M] -> their brightness, a byte each, row by row from the highest band to the lowest."""
    light = ((mel - DARKEST) / (BRIGHTEST - DARKEST)).clamp(0, 1) * 255
    rows = light.round().to(torch.uint8).T.flip(0).contiguous()
    return {"width": rows.shape[1], "height": rows.shape[0], "data": base64.b64encode(rows.numpy().tobytes()).decode()}


def wav(wave: Tensor, rate: int) -> str:
    """A wave [N] as a WAV file, base64."""
    data = pcm(wave)
    return base64.b64encode(wav_header(rate, len(data)) + data).decode()


async def _wave(service: Service, file: UploadFile, name: str) -> Tensor:
    data = check_size(await file.read(), service.limits.upload_bytes, name)
    return await service.decode(data, name)


def _check_text(service: Service, name: str, text: str) -> None:
    if not text.strip() or len(text) > service.limits.text:
        raise bad(name, f"expected 1 to {service.limits.text} characters, got {len(text.strip())}")


def _completed(done: Any) -> Any:
    if done is None:
        raise ServeError(500, "the answer broke off", "no_answer")
    return done
