"""Plain-torch definitions of the native ops: what each op means, what tests and benchmarks compare against.

One module per op, with the op's name. They need torch only, run on any device and dtype, and are differentiable
wherever the native op is.
"""

from mimo_audio_native.reference.backbone_step import backbone_step
from mimo_audio_native.reference.delayed_sampling import delayed_sampling
from mimo_audio_native.reference.linear import linear
from mimo_audio_native.reference.log_mel import log_mel
from mimo_audio_native.reference.patch_attention import patch_attention
from mimo_audio_native.reference.patch_decode import patch_decode
from mimo_audio_native.reference.quantized_linear import (
    dequantize_weight,
    quantize_weight,
    quantized_linear,
    quantized_rows,
)
from mimo_audio_native.reference.rotary import rotary
from mimo_audio_native.reference.rvq import rvq_decode, rvq_encode, rvq_quantize
from mimo_audio_native.reference.sampling import sample
from mimo_audio_native.reference.stft import istft, stft
from mimo_audio_native.reference.stream_step import stream_istft, stream_layers, stream_up_convolution
from mimo_audio_native.reference.vocoder_head import vocoder_head
from mimo_audio_native.reference.window_attention import window_attention

__all__ = [
    "backbone_step",
    "delayed_sampling",
    "dequantize_weight",
    "istft",
    "linear",
    "log_mel",
    "patch_attention",
    "patch_decode",
    "quantize_weight",
    "quantized_linear",
    "quantized_rows",
    "rotary",
    "rvq_decode",
    "rvq_encode",
    "rvq_quantize",
    "sample",
    "stft",
    "stream_istft",
    "stream_layers",
    "stream_up_convolution",
    "vocoder_head",
    "window_attention",
]
