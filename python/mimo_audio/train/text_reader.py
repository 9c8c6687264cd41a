"""The language model that stage 1 trains along: it reads the quantized representation and writes the text.

MiMo-Audio report, section 2.1 (audio-to-text). Its gradient reaches the encoder straight through the quantizer, so that
the codes keep what was said. Text is bytes of UTF-8; a recording's positions are its vectors, a mark, and the bytes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimo_audio.lm.backbone import Backbone
from mimo_audio.lm.transformer import StackShape
from mimo_audio.train.recipe import AudioToText

BEGIN, END = 256, 257  # beside the 256 bytes
IGNORED = -100


class TextReader(nn.Module):
    """Projection, causal Transformer over vectors and text, head."""

    def __init__(self, d_model: int, sizes: AudioToText) -> None:
        super().__init__()
        shape = StackShape(
            width=sizes.width,
            layers=sizes.layers,
            heads=sizes.heads,
            kv_heads=sizes.heads,
            head_dim=sizes.width // sizes.heads,
            ffn_dim=sizes.ffn_dim,
            eps=1e-6,
            rope_theta=10000,
        )
        self.project = nn.Linear(d_model, sizes.width)
        self.backbone = Backbone(shape, END + 1)
        self.head = nn.Linear(sizes.width, END + 1, bias=False)

    def forward(self, vectors: Tensor, lengths: Sequence[int], texts: Sequence[str]) -> Tensor:
        """Packed vectors [sum(lengths), d_model] and the text of each sequence -> mean loss of the texts' bytes."""
        audio = self.project(vectors).split(list(lengths))
        codes = [[BEGIN, *text.encode(), END] for text in texts]
        longest = max(len(sound) + len(code) - 1 for sound, code in zip(audio, codes, strict=True))
        embeds, targets = [], []
        for sound, code in zip(audio, codes, strict=True):
            written = self.backbone.embed_tokens(torch.tensor(code[:-1], device=vectors.device)).to(sound.dtype)
            rest = longest - len(sound) - len(written)  # nothing that counts attends to what follows it
            embeds.append(F.pad(torch.cat((sound, written)), (0, 0, 0, rest)))
            targets += [IGNORED] * len(sound) + code[1:] + [IGNORED] * rest
        # Sums and norms stay float32 where products are bfloat16.
        logits = self.head(self.backbone(torch.stack(embeds).float()))
        wanted = torch.tensor(targets, device=vectors.device)
        return F.cross_entropy(logits.flatten(0, 1).float(), wanted, ignore_index=IGNORED)
