"""Native ops of MiMo-Audio for torch: importing this registers ``torch.ops.mimo.*`` (CPU and, where built, CUDA).

Needs torch only. Every op has a plain-torch definition of the same name in ``mimo_audio_native.reference``.
"""

import torch  # noqa: F401  (before _C, which links against its libraries)

from mimo_audio_native._C import build_info  # registers torch.ops.mimo.*
from mimo_audio_native.bad_data import raise_device_errors
from mimo_audio_native.mel import mel_filterbank
from mimo_audio_native.ops.backbone_step import backbone_step
from mimo_audio_native.ops.delayed_sampling import delayed_sampling
from mimo_audio_native.ops.linear import linear
from mimo_audio_native.ops.log_mel import log_mel
from mimo_audio_native.ops.patch_attention import patch_attention
from mimo_audio_native.ops.patch_decode import patch_decode
from mimo_audio_native.ops.quantized_linear import dequantize_weight, quantize_weight, quantized_linear
from mimo_audio_native.ops.rotary import rotary
from mimo_audio_native.ops.rvq import rvq_decode, rvq_encode, rvq_quantize
from mimo_audio_native.ops.rvq_tables import RvqTables
from mimo_audio_native.ops.sampling import sample
from mimo_audio_native.ops.stft import istft, stft
from mimo_audio_native.ops.stream_step import stream_istft, stream_layers, stream_up_convolution
from mimo_audio_native.ops.vocoder_head import vocoder_head
from mimo_audio_native.ops.window_attention import window_attention

__all__ = [
    "RvqTables",
    "backbone_step",
    "build_info",
    "delayed_sampling",
    "dequantize_weight",
    "istft",
    "linear",
    "log_mel",
    "mel_filterbank",
    "patch_attention",
    "patch_decode",
    "quantize_weight",
    "quantized_linear",
    "raise_device_errors",
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
