"""The patch decoder: a hidden state of the backbone -> the codes of a patch (MiMo-Audio report, section 2.2).

A causal Transformer over steps. Codebook r of frame i is made at step i + delay r, so that the codebooks of a frame
follow each other; the input of a step is the sum of the embeddings of what the step before has made.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimo_audio.lm.patch_encoder import SpeechEmbeddings
from mimo_audio.lm.transformer import Linear, StackShape, Transformer, patch_attention
from mimo_audio_native import patch_decode


class PatchDecoder(nn.Module):
    """Owns the way in from the backbone, the Transformer and a head per codebook; embeds with the encoder's tables."""

    def __init__(
        self,
        shape: StackShape,
        hidden_size: int,
        embedding_dim: int,
        vocabularies: Sequence[int],
        group_size: int,
        delays: Sequence[int],
    ) -> None:
        super().__init__()
        self.group_size, self.delays = group_size, tuple(delays)
        self.input = Linear(hidden_size, shape.width, bias=False)
        self.transformer = Transformer(shape)
        self.heads = nn.ModuleList(Linear(shape.width, size, bias=False) for size in vocabularies)
        self.projection = None if embedding_dim == shape.width else Linear(embedding_dim, shape.width, bias=False)

    @property
    def steps(self) -> int:
        """Steps per patch."""
        return self.group_size + max(self.delays)

    @torch.no_grad()
    def decode(
        self,
        local_hidden: Tensor,
        speech_embeddings: SpeechEmbeddings,
        temperature: Tensor,
        top_k: Tensor,
        top_p: Tensor,
        seeds: Tensor,
        offsets: Tensor,
        layers: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """local_hidden [B, D_local] -> codes [B, G, C], drawn as `mimo_audio_native.patch_decode` says.

        layers: the Transformer's `tensors` if they are at hand.
        """
        shape = self.transformer.shape
        cos, sin = self.transformer.rotary(self.steps, local_hidden.device)
        return patch_decode(
            local_hidden,
            self.transformer.tensors() if layers is None else layers,
            self.transformer.norm.weight,
            [head.weight for head in self.heads if isinstance(head, Linear)],
            speech_embeddings.tables(),
            None if self.projection is None else self.projection.weight,
            cos,
            sin,
            shape.heads,
            shape.eps,
            speech_embeddings.empty_ids,
            self.delays,
            self.group_size,
            temperature,
            top_k,
            top_p,
            seeds,
            offsets,
        )

    def step_inputs(self, local_hidden: Tensor, codes: Tensor, speech_embeddings: SpeechEmbeddings) -> Tensor:
        """The inputs [N, steps, D_local] that would have made the given codes [N, G, C] from local_hidden [N, D_local].

        Step 0 is the hidden state; step t is the sum over codebooks of the embeddings of what step t - 1 makes.
        """
        delayed = [
            F.pad(speech_embeddings.channel(channel, codes[..., channel]), (0, 0, delay, max(self.delays) - delay))
            for channel, delay in enumerate(self.delays)
        ]
        made = torch.stack(delayed).sum(0)[:, : self.steps - 1]
        if self.projection is not None:
            made = self.projection(made)
        inputs = torch.cat([local_hidden.unsqueeze(1), made], 1)
        return inputs.to(speech_embeddings.tables()[0].dtype)  # under autocast, too: layers add to it

    def step_hidden(self, inputs: Tensor) -> Tensor:
        """Inputs of all steps [N, steps, D_local] -> outputs of all steps, after the final norm."""
        cos, sin = self.transformer.rotary(inputs.shape[1], inputs.device)
        attention = patch_attention(inputs.shape[1], self.transformer.shape.head_dim)
        return self.transformer(inputs, lambda _, q, k, v: attention(q, k, v, cos, sin, True))

    def logits(self, step_hidden: Tensor) -> list[Tensor]:
        """Outputs of all steps [N, steps, D_local] -> for each codebook the logits of its frames [N, G, V_c]."""
        return [
            head(step_hidden[:, delay : delay + self.group_size])
            for head, delay in zip(self.heads, self.delays, strict=True)
        ]

    def forward(self, local_hidden: Tensor, codes: Tensor, speech_embeddings: SpeechEmbeddings) -> list[Tensor]:
        """Teacher-forced: local_hidden [N, D_local] and codes [N, G, C] -> per codebook the logits [N, G, V_c]."""
        return self.logits(self.step_hidden(self.step_inputs(local_hidden, codes, speech_embeddings)))
