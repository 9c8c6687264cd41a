"""Segments are those of the published code, for other layouts too; what it asserts about its input, ours says."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mimo_audio.errors import PromptError
from mimo_audio.prompts.segments import Layout, audio_segment, pad_codes, patches, stream_segment, text_segment
from mimo_audio.text import TextTokenizer


def segment(case: dict[str, Any], tokenizer: TextTokenizer) -> Tensor:
    """Our segment for a constructor call of the published code."""
    empty_ids, options = case["speech_zeroemb_idx"], dict(case["kwargs"])
    empty_ids = [empty_ids] * case["audio_channels"] if isinstance(empty_ids, int) else empty_ids
    layout = Layout(case["group_size"], tuple(empty_ids), tokenizer.special)
    text, ids = options.pop("text", None), case["tokenized_text"]
    ids = tokenizer.encode(text) if ids is None else ids
    if case["audio"] is None:
        return text_segment(layout, ids)
    codes = torch.tensor(case["audio"], dtype=torch.int64).view(-1, layout.channels).T
    if case["kind"] == "InputSegment":
        return audio_segment(layout, codes) if options.get("add_sosp_eosp", True) else patches(layout, codes)
    sizes = {"text_piece": "text_segment_size", "audio_piece": "audio_segment_size"}
    return stream_segment(layout, ids, codes, **{k: options[v] for k, v in sizes.items() if v in options})


def test_segments_equal_the_golden_ones(segment_case: dict[str, Any], tokenizer: TextTokenizer) -> None:
    if "error" in segment_case:
        assert "not divisible by group_size 4" in segment_case["error"]["message"]
        with pytest.raises(PromptError, match=r"^codes: expected a multiple of 4 frames, got \d+$"):
            segment(segment_case, tokenizer)
        return
    ids = segment(segment_case, tokenizer)
    assert ids.dtype == torch.int64
    assert ids.tolist() == segment_case["input_ids"]


def test_the_last_frame_fills_up_a_patch() -> None:
    codes = torch.arange(10).view(2, 5)
    assert pad_codes(codes, 4).tolist() == [[0, 1, 2, 3, 4, 4, 4, 4], [5, 6, 7, 8, 9, 9, 9, 9]]
    assert pad_codes(codes, 5).tolist() == codes.tolist()


@pytest.mark.parametrize("text_ids", range(13))
@pytest.mark.parametrize("frames", [4, 20, 44])
def test_a_stream_holds_all_text_and_audio_in_order(tokenizer: TextTokenizer, text_ids: int, frames: int) -> None:
    layout, ids, codes = (
        Layout(4, (128, 128), tokenizer.special),
        list(range(text_ids)),
        torch.randint(128, (2, frames)),
    )
    stream = stream_segment(layout, ids, codes)
    special, row = layout.special, stream[0, ::4].tolist()
    assert [token for token in row if token != special.empty] == [special.sostm, *ids, special.eot, special.eostm]
    assert (
        stream[1:, (stream[0] == special.empty).view(-1, 4)[:, :1].expand(-1, 4).flatten()].tolist() == codes.tolist()
    )
    turns = "".join("a" if token == special.empty else "t" for token in row[1:-1])
    if frames == 20:
        first = 5 if text_ids > 5 else text_ids + 1
        assert turns == "t" * first + "aaaaa" + "t" * (text_ids + 1 - first)
