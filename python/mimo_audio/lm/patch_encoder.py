"""The patch encoder: codes of a patch -> one input of the backbone (MiMo-Audio report, section 2.2)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mimo_audio_native as mn
from mimo_audio.lm.transformer import Linear, StackShape, Transformer, patch_attention


class SpeechEmbeddings(nn.ModuleList):
    """A table per codebook, shared by patch encoder and patch decoder; empty codes embed to zero whatever it holds."""

    def __init__(self, sizes: Sequence[int], empty_ids: Sequence[int], width: int) -> None:
        super().__init__(nn.Embedding(size, width) for size in sizes)
        self.empty_ids = tuple(empty_ids)
        self.width = width

    def tables(self) -> list[Tensor]:
        """The tables [V_c, E]."""
        return [table.weight for table in self if isinstance(table, nn.Embedding)]

    def channel(self, index: int, codes: Tensor) -> Tensor:
        """Codes [..] of one codebook -> [.., E]."""
        return self[index](codes).masked_fill((codes == self.empty_ids[index]).unsqueeze(-1), 0)

    def joined(self) -> tuple[Tensor, Tensor]:
        """All tables one below the other [sum V_c, E], empty codes zero, and where each begins [C]: for `rows`."""
        tables = [table.detach().clone() for table in self.tables()]
        for table, empty in zip(tables, self.empty_ids, strict=True):
            table[empty] = 0
        starts = torch.tensor([0, *(len(table) for table in tables[:-1])], device=tables[0].device).cumsum(0)
        return torch.cat(tables), starts

    @staticmethod
    def rows(codes: Tensor, joined: tuple[Tensor, Tensor]) -> Tensor:
        """`forward`, bit for bit, by one look-up in `joined`: a few codes cost calls rather than arithmetic."""
        table, starts = joined
        first, *rest = F.embedding(codes + starts, table).unbind(-2)
        for embedding in rest:
            first = first + embedding
        return first

    def forward(self, codes: Tensor) -> Tensor:
        """codes [.., C] -> the sum over codebooks [.., E], of the tables' dtype."""
        total = self.channel(0, codes[..., 0])
        for index in range(1, len(self)):
            total = total + self.channel(index, codes[..., index])
        return total


class PatchEncoder(nn.Module):
    """A Transformer inside each patch, then one projection of its frames together."""

    def __init__(self, shape: StackShape, group_size: int, width: int, full_attention: bool) -> None:
        super().__init__()
        self.causal = not full_attention
        self.attention = patch_attention(group_size, shape.head_dim)
        self.transformer = Transformer(shape)
        self.projection = Linear(group_size * shape.width, width, bias=False)

    def frames(self, embeddings: Tensor) -> Tensor:
        """Summed code embeddings [P, G, E] -> frames that know their patch [P, G, E], after the final norm."""
        cos, sin = self.transformer.rotary(embeddings.shape[1], embeddings.device)
        return self.transformer(embeddings, lambda _, q, k, v: self.attention(q, k, v, cos, sin, self.causal))

    @torch.no_grad()
    def rows(self, embeddings: Tensor, layers: Sequence[Tensor] | None = None) -> Tensor:
        """`forward`, where no patch's result depends on the others; all layers in one call, for a few patches.

        A frame is a position, a patch a page of `backbone_step`. layers: the Transformer's `tensors` if they are at
        hand. Not differentiable.
        """
        patches, size, _ = embeddings.shape
        shape, device = self.transformer.shape, embeddings.device
        frame = torch.arange(size, device=device).repeat(patches)
        patch = torch.arange(patches, dtype=torch.int32, device=device).repeat_interleave(size)
        hidden = mn.backbone_step(
            embeddings.flatten(0, 1),
            self.transformer.tensors() if layers is None else layers,
            self.transformer.norm.weight,
            embeddings.new_empty(shape.layers, 2, patches, shape.kv_heads, size, shape.head_dim),
            size - 1,
            None,
            *self.transformer.rotary(size, device),
            shape.heads,
            shape.eps,
            frame,
            patch[:, None],
            None if self.causal else torch.full_like(frame, size - 1),
        )
        return self.projection.rows(hidden.view(patches, -1))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Summed code embeddings [P, G, E] -> [P, H]."""
        return self.projection(self.frames(embeddings).flatten(1))
