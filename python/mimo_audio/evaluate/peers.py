"""Other codecs on the same recordings: EnCodec, DAC and Mimi as released, by the transformers library (extra "peers").

A peer codes at the bit rate nearest to ours that it offers: a number of its codebooks, for EnCodec one of the rates it
was trained for. Weights come from safetensors in a local folder or the local hub cache: nothing is fetched, nothing
unpickled.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from torch import Tensor

from mimo_audio.errors import MimoError, ModelError
from mimo_audio.files.schema import read_json

PIECE_SECONDS = 30  # longer recordings are coded in pieces of this length, each for itself


class Peer(ABC):
    """A codec from elsewhere at one bit rate: `reconstruct` is its encoder and decoder with only codes in between."""

    repository: ClassVar[str]  # where the release lies on the hub, for those whose cache has it

    def __init__(self, name: str, model: Any, kbit_per_s: float) -> None:
        self.name, self.model = name, model
        self.sample_rate: int = model.config.sampling_rate
        if getattr(model.config, "audio_channels", 1) != 1:
            raise ModelError(f"--peer {name}: expected a codec of one channel, got {model.config.audio_channels}")
        self.hop = self._hop()
        per_codebook = math.log2(model.config.codebook_size) * self.sample_rate / self.hop / 1000
        self.codebooks = min(self._choices(), key=lambda count: abs(count * per_codebook - kbit_per_s))
        self.kbit_per_s = self.codebooks * per_codebook

    def reconstruct(self, wave: Tensor) -> Iterator[Tensor]:
        """Blocks of what the codes of wave [N] at `sample_rate` decode to, together [N]. Raises ModelError."""
        try:
            for piece in wave.split(PIECE_SECONDS * self.sample_rate):
                yield self._piece(piece)
        except (RuntimeError, ValueError, IndexError) as error:
            raise ModelError(f"--peer {self.name}: cannot code {len(wave)} samples: {error}") from error

    @torch.no_grad()
    def _piece(self, wave: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(wave, (0, -len(wave) % self.hop))
        decoded = self._code(padded[None, None].to(self.model.device)).flatten().float().cpu()[: len(wave)]
        return torch.nn.functional.pad(decoded, (0, len(wave) - len(decoded)))

    def _hop(self) -> int:
        """Samples per frame of codes."""
        return int(self.model.config.hop_length)

    @abstractmethod
    def _choices(self) -> Iterable[int]:
        """The numbers of codebooks that the model can use."""

    @abstractmethod
    def _code(self, wave: Tensor) -> Tensor:
        """wave [1, 1, N] -> codes -> wave, about as long."""


class Encodec(Peer):
    """EnCodec (Défossez et al., 2022), of one channel."""

    repository = "facebook/encodec_24khz"

    def _choices(self) -> Iterable[int]:
        count = self.model.quantizer.get_num_quantizers_for_bandwidth
        self.bandwidths = {count(bandwidth): bandwidth for bandwidth in self.model.config.target_bandwidths}
        return self.bandwidths

    def _code(self, wave: Tensor) -> Tensor:
        encoded = self.model.encode(wave, bandwidth=self.bandwidths[self.codebooks])
        return self.model.decode(encoded.audio_codes, encoded.audio_scales).audio_values


class Dac(Peer):
    """Descript Audio Codec (Kumar et al., 2023)."""

    repository = "descript/dac_24khz"

    def _choices(self) -> Iterable[int]:
        return range(1, self.model.config.n_codebooks + 1)

    def _code(self, wave: Tensor) -> Tensor:
        codes = self.model.encode(wave, n_quantizers=self.codebooks).audio_codes
        return self.model.decode(audio_codes=codes).audio_values


class Mimi(Peer):
    """Mimi (Défossez et al., 2024)."""

    repository = "kyutai/mimi"

    def _hop(self) -> int:
        return round(self.sample_rate / self.model.config.frame_rate)

    def _choices(self) -> Iterable[int]:
        config = self.model.config
        return range(config.num_semantic_quantizers + 1, config.num_quantizers + 1)

    def _code(self, wave: Tensor) -> Tensor:
        return self.model.decode(self.model.encode(wave, num_quantizers=self.codebooks).audio_codes).audio_values


PEERS: dict[str, type[Peer]] = {"encodec": Encodec, "dac": Dac, "mimi": Mimi}


def load_peer(option: str, kbit_per_s: float, device: torch.device) -> Peer:
    """The peer "NAME=FOLDER", or "NAME" from the local hub cache, near a bit rate. Raises MimoError."""
    name, given, folder = option.partition("=")
    if name not in PEERS:
        raise MimoError(f"--peer: expected NAME=FOLDER or NAME, one of {', '.join(PEERS)}, got {option!r}")
    try:
        import transformers
    except ImportError:
        raise MimoError("--peer needs transformers: pip install transformers") from None
    if given:
        _check_folder(name, Path(folder))
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    kind = PEERS[name]
    try:
        model, info = getattr(transformers, f"{kind.__name__}Model").from_pretrained(
            folder if given else kind.repository,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if given:
            raise ModelError(f"--peer {name}: cannot load {folder}: {error}") from error
        missing = f"no usable copy of {kind.repository} (safetensors) in the local hub cache"
        raise ModelError(f"--peer {name}: {missing}; --peer {name}=FOLDER names a folder") from error
    if info["missing_keys"]:
        some = ", ".join(sorted(info["missing_keys"])[:3])
        raise ModelError(f"--peer {name}: {folder or kind.repository}: tensors are missing: {some}")
    return kind(name, model.eval().to(device), kbit_per_s)


def _check_folder(name: str, folder: Path) -> None:
    """Raises ModelError unless the folder's config.json describes this codec: others would load as random weights."""
    try:
        found = read_json(folder / "config.json")["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"--peer {name}: {folder}: expected a checkpoint folder with config.json: {error}") from error
    if found != name:
        raise ModelError(f"--peer {name}: {folder}: expected a checkpoint of {name}, got one of {found!r}")
