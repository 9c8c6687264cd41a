// All steps of the patch decoder: parameters and launch prototypes (MiMo-Audio report, section 2.2).
#pragma once
#include "mimo/decode_step.h"
#include "mimo/delayed_sampling.h"

namespace mimo {

inline constexpr int kMaxDecodeSteps = 1024;

struct PatchDecodeParams {
  const void* hidden;          // [batch, dim]: the input of step 0
  const BlockWeights* blocks;  // [layers], in host memory for CUDA as well: kernels take them one by one
  const void* norm;            // [dim]
  const void* projection;      // [dim, embed_dim], or null where embed_dim is dim
  const float *cos, *sin;      // [>= steps, head_dim / 2]
  void* workspace;             // CUDA only: patch_decode_workspace(params) bytes
  BlockShape shape;
  int32_t layers, steps;
  // The output side, which also has the batch and the dtype of all weights; hidden, next, step and workspace are set
  // step by step.
  DelayedSamplingParams sampling;
};

namespace cpu {
MIMO_CPU_KERNEL(void, patch_decode, const PatchDecodeParams&)
}
namespace cuda {
int64_t patch_decode_workspace(const PatchDecodeParams&);
LaunchError patch_decode(const PatchDecodeParams&, void* stream);
}  // namespace cuda

}  // namespace mimo
