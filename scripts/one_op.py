"""Imports the ops package and runs one op on the CPU: the least that an installation with torch alone must do."""

import torch

import mimo_audio_native as mn

codebooks = [torch.randn(size, 16) for size in (32, 8)]
x = torch.randn(5, 16)
codes = torch.ops.mimo.rvq_encode(x, codebooks)
nearest = torch.cdist(x, codebooks[0]).argmin(1)
assert torch.equal(codes[0], nearest), "rvq_encode: the first codes are not the nearest entries"
print(f"rvq_encode runs under torch {torch.__version__}; {mn.build_info()}")
