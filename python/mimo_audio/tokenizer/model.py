"""AudioTokenizer: the whole tokenizer, from wave to codes and back (MiMo-Audio report, section 2.1).

Every stage has a form for one item and one for a list of items, `..._batch`, which computes them packed back to back
and gives what each would give alone. Long input is cut as published: 60 s of mel frames are encoded, 1500 code frames
are decoded, each piece on its own. The methods do not track gradients; training calls the modules.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.resources import files
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from mimo_audio.errors import AudioError, CodesError, ModelError, first_line
from mimo_audio.files import audio
from mimo_audio.released import checkpoint, hub
from mimo_audio.tokenizer.config import TokenizerConfig
from mimo_audio.tokenizer.decoder import Decoder
from mimo_audio.tokenizer.encoder import Encoder
from mimo_audio.tokenizer.mel import LogMel
from mimo_audio.tokenizer.quantizer import Quantizer
from mimo_audio.tokenizer.vocoder import Vocoder

SEGMENT_MEL_FRAMES = 6000  # encoded at once
SEGMENT_CODE_FRAMES = 1500  # decoded at once
BLOCK_SAMPLES = 1_440_000  # of a wave in memory, per mel pass
PASS_SEGMENTS = 4  # a packed pass holds at most so many full segments


class AudioTokenizer(nn.Module):
    """24 kHz wave <-> codes [R, T'] at 25 Hz. Waves are floats, [N] or [1, N].

    Modules for training, over packed sequences of given lengths: `encoder(mel, lengths)`, `quantizer(features)`,
    `decoder(embeddings, lengths)`, `vocoder(coarse, lengths)`.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = LogMel(config)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    @property
    def quantizer(self) -> Quantizer:
        """The codebooks."""
        return self.encoder.quantizer

    @property
    def vocoder(self) -> Vocoder:
        """The part that turns a coarse mel into a wave."""
        return self.decoder.vocoder

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.encoder.conv1.weight.device

    @property
    def sample_rate(self) -> int:
        """Samples per second of waves, in and out."""
        return self.config.sampling_rate

    @classmethod
    def from_pretrained(
        cls, folder: str | PathLike[str], device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> "AudioTokenizer":
        """Loads a folder in the released layout (config.json, model.safetensors), or "nano", the model that ships here.

        A release's name, XiaomiMiMo/MiMo-Audio-Tokenizer, is looked for in the local hub cache; nothing is downloaded.

        dtype float32 or bfloat16; codebooks, windows and mel stay float32. Raises ModelError with one line that says
        what is wrong with the folder, listing every tensor that does not fit.
        """
        if dtype not in (torch.float32, torch.bfloat16):
            raise ModelError(f"dtype: expected torch.float32 or torch.bfloat16, got {dtype}")
        nano = folder == "nano"
        path = Path(str(files("mimo_audio") / "assets" / "nano")) if nano else hub.find_folder(folder, "tokenizer")
        weights = checkpoint.locate(path)
        config = TokenizerConfig.load(path / "config.json")
        try:
            with torch.device("meta"):
                model = cls(config)
        except (RuntimeError, MemoryError) as error:
            raise ModelError(f"{path}: cannot build a model of these sizes: {first_line(error)}") from error
        checkpoint.load(model, weights)
        if not all(entries.isfinite().all() for entries in model.quantizer.embeddings()):
            raise ModelError(f"{weights}: expected finite codebooks, got NaN or infinity")
        try:
            return model.to(device, dtype).eval()
        except (RuntimeError, AssertionError) as error:  # torch built without CUDA answers with an assertion
            raise ModelError(f"device: cannot use {device}: {first_line(error)}") from error

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Writes config.json and model.safetensors, released layout, each whole or not at all. Raises OutputError."""
        path = Path(folder)
        checkpoint.save(self, path / "model.safetensors")
        self.config.save(path / "config.json")

    def log_mel(self, wave: Tensor) -> Tensor:
        """wave [N] at the model's sampling rate -> [1 + N // hop_length, n_mels] float32. Raises AudioError."""
        return self.log_mel_batch([wave])[0]

    @torch.no_grad()
    def log_mel_batch(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """`log_mel` of every wave."""
        return [torch.cat(list(self.mel.stream(audio.check_wave(wave).split(BLOCK_SAMPLES)))) for wave in waves]

    def encode_features(self, mel: Tensor) -> Tensor:
        """mel [T, n_mels] -> continuous vectors [T', d_model] of the model's dtype. Raises AudioError."""
        return self.encode_features_batch([mel])[0]

    def encode_features_batch(self, mels: Sequence[Tensor]) -> list[Tensor]:
        """`encode_features` of every mel."""
        for mel in mels:
            _check_rows("mel", mel, self.config.n_mels)
        return self._run(self.encoder, self.encoder.output_length, mels, SEGMENT_MEL_FRAMES)

    def quantize(self, features: Tensor, n_q: int | None = None) -> Tensor:
        """features [T', d_model] -> codes [n_q, T'] int64; n_q None or 0 means all codebooks, too many are clipped."""
        return self.quantize_batch([features], n_q)[0]

    @torch.no_grad()
    def quantize_batch(self, features: Sequence[Tensor], n_q: int | None = None) -> list[Tensor]:
        """`quantize` of every item."""
        if n_q is not None and n_q < 0:
            raise CodesError(f"n_q: expected a number of codebooks, got {n_q}")
        for item in features:
            _check_rows("features", item, self.config.d_model)
            if not item.isfinite().all():
                raise AudioError(
                    "features: expected finite numbers, got NaN or infinity; is the wave far beyond -1 .. 1?"
                )
        if not features:
            return []
        codes = self.quantizer.encode(torch.cat(list(features)).to(self.device), n_q)
        return list(codes.split([len(item) for item in features], 1))

    def dequantize(self, codes: Tensor) -> Tensor:
        """codes [R', T'] of the first R' codebooks -> sum of their entries [T', d_model] float32. Raises CodesError."""
        return self.dequantize_batch([codes])[0]

    @torch.no_grad()
    def dequantize_batch(self, codes: Sequence[Tensor]) -> list[Tensor]:
        """`dequantize` of every item; all with codes of the same number of codebooks."""
        for item in codes:
            self.check_codes(item)
        if len({len(item) for item in codes}) > 1:
            raise CodesError(f"codes: expected one number of codebooks in a batch, got {[len(item) for item in codes]}")
        if not codes:
            return []
        embeddings = self.quantizer.decode(torch.cat(list(codes), 1).to(self.device, torch.int64))
        return list(embeddings.split([item.shape[1] for item in codes]))

    def coarse_mel(self, embeddings: Tensor) -> Tensor:
        """embeddings [T', d_model] -> coarse mel [T_out, n_mels] at 100 Hz, of the model's dtype."""
        return self.coarse_mel_batch([embeddings])[0]

    def coarse_mel_batch(self, embeddings: Sequence[Tensor]) -> list[Tensor]:
        """`coarse_mel` of every item."""
        for item in embeddings:
            _check_rows("embeddings", item, self.config.d_model)
        return self._run(self.decoder, self.decoder.output_length, embeddings, SEGMENT_CODE_FRAMES)

    def vocode(self, coarse: Tensor) -> Tensor:
        """coarse mel [T_out, n_mels] -> wave [T_out * hop_length] float32, not clamped."""
        return self.vocode_batch([coarse])[0]

    def vocode_batch(self, coarse: Sequence[Tensor]) -> list[Tensor]:
        """`vocode` of every item."""
        for item in coarse:
            _check_rows("coarse", item, self.config.n_mels)
        return self._run(
            self.vocoder, self.vocoder.output_length, coarse, self.decoder.output_length(SEGMENT_CODE_FRAMES)
        )

    def decode(self, codes: Tensor) -> Tensor:
        """codes [R', T'] of the first R' codebooks -> wave [N] float32, 960 samples per frame. Raises CodesError."""
        return self.decode_batch([codes])[0]

    def decode_batch(self, codes: Sequence[Tensor]) -> list[Tensor]:
        """`decode` of every item."""
        return self.vocode_batch(self.coarse_mel_batch(self.dequantize_batch(codes)))

    def encode(self, wave: Tensor, sample_rate: int | None = None, n_q: int | None = None) -> Tensor:
        """wave [N] (at the model's rate, unless sample_rate says otherwise) -> codes [n_q, T']. Raises AudioError."""
        wave, rate = audio.check_wave(wave), self.sample_rate
        source_rate = rate if sample_rate is None else sample_rate
        blocks = audio.resample_blocks(wave.split(BLOCK_SAMPLES), source_rate, rate)
        return torch.cat(list(self.encode_blocks(blocks, n_q)), 1)

    def encode_batch(
        self, waves: Sequence[Tensor], sample_rate: int | None = None, n_q: int | None = None
    ) -> list[Tensor]:
        """`encode` of every wave."""
        rate = self.sample_rate
        source_rate = rate if sample_rate is None else sample_rate
        waves = [audio.resample(audio.check_wave(wave), source_rate, rate) for wave in waves]
        return self.quantize_batch(self.encode_features_batch(self.log_mel_batch(waves)), n_q)

    @torch.no_grad()
    def encode_blocks(self, blocks: Iterable[Tensor], n_q: int | None = None) -> Iterator[Tensor]:
        """A wave that arrives in blocks [N_i] at the model's rate -> codes [n_q, < 1650], segment by segment.

        Together they are `encode` of the whole wave; memory does not grow with its length. A last segment of less than
        a tenth is encoded in the pass of the one before: 60 s are 6001 frames. Raises AudioError.
        """
        checked = (audio.check_wave(block) for block in blocks if block.numel())
        empty = True
        for frames in audio.regroup(self.mel.stream(checked), SEGMENT_MEL_FRAMES, SEGMENT_MEL_FRAMES // 10):
            empty = False
            yield self.quantize(self.encode_features(frames), n_q)
        if empty:
            raise AudioError(f"wave: expected at least one sample at {self.sample_rate} Hz, got none")

    def encode_file(self, path: str | PathLike[str], n_q: int | None = None) -> Iterator[Tensor]:
        """`encode_blocks` of an audio file of any rate and channel count. Raises AudioError."""
        return self.encode_blocks(audio.read_blocks(path, self.sample_rate), n_q)

    def check_codes(self, codes: Tensor, empty: bool = False) -> None:
        """Raises CodesError unless codes are integers [1 .. R codebooks, frames], each in its codebook.

        At least one frame, unless `empty`.
        """
        sizes = self.config.codebook_size
        if not isinstance(codes, Tensor) or codes.is_floating_point() or codes.dtype == torch.bool:
            kind = codes.dtype if isinstance(codes, Tensor) else type(codes).__name__
            raise CodesError(f"codes: expected an integer tensor [codebooks, frames], got {kind}")
        if codes.dim() != 2 or not 1 <= len(codes) <= len(sizes) or (codes.shape[1] == 0 and not empty):
            raise CodesError(
                f"codes: expected [codebooks, frames] with 1 to {len(sizes)} codebooks and at least one frame, "
                f"got shape {list(codes.shape)}"
            )
        if codes.shape[1] == 0:
            return
        limits = zip(codes.amin(1).tolist(), codes.amax(1).tolist(), sizes, strict=False)
        for number, (low, high, size) in enumerate(limits):
            if low < 0 or high >= size:
                raise CodesError(
                    f"codes: expected 0 .. {size - 1} in codebook {number}, got {low if low < 0 else high}"
                )

    @torch.no_grad()
    def _run(
        self,
        module: Callable[[Tensor, Sequence[int]], Tensor],
        output_length: Callable[[int], int],
        items: Sequence[Tensor],
        segment: int,
    ) -> list[Tensor]:
        """`module` over the segments of all items, packed into passes of bounded size; one result per item."""
        parts = [item.to(self.device).split(segment) for item in items]
        results: list[Tensor] = []
        for group in _passes([part for split in parts for part in split], PASS_SEGMENTS * segment):
            lengths = [len(part) for part in group]
            results += module(torch.cat(group), lengths).split([output_length(n) for n in lengths])
        rest = iter(results)
        return [torch.cat([next(rest) for _ in split]) for split in parts]


def _check_rows(name: str, rows: Tensor, width: int) -> None:
    if not isinstance(rows, Tensor) or rows.dim() != 2 or rows.shape[1] != width or len(rows) == 0:
        got = list(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
        raise AudioError(f"{name}: expected [frames, {width}] with at least one frame, got {got}")


def _passes(parts: Sequence[Tensor], limit: int) -> Iterator[list[Tensor]]:
    """Consecutive parts in groups of at most `limit` rows together (or of one part)."""
    group: list[Tensor] = []
    for part in parts:
        if group and sum(map(len, group)) + len(part) > limit:
            yield group
            group = []
        group.append(part)
    if group:
        yield group
