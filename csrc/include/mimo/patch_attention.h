// Attention inside patches of a few frames: parameters and launch prototypes (MiMo-Audio report, section 2.2).
#pragma once
#include <cstdint>

#include "common/cpu_dispatch.h"
#include "mimo/attention.h"
#include "mimo/dtype.h"

namespace mimo {

inline constexpr int kMaxPatchFrames = 16;

// [P, G, H, D] with contiguous rows of D elements, for instance a slice of a fused [P, G, 3, H, D]; strides in
// elements. Rows begin at multiples of 16 bytes.
struct PatchHeads {
  const void* data;
  int64_t patch_stride, frame_stride, head_stride;
};

struct PatchAttentionParams {
  PatchHeads q, k, v;
  const float* cos;  // [frames or more, dim / 2], or nullptr: no rotation
  const float* sin;
  void* out;  // [patches, frames, heads, dim]
  double scale;
  int64_t patches;
  int32_t frames, heads, dim;
  bool causal;
  DType dtype;  // of q, k, v, out and their gradients
};

struct PatchAttentionBackwardParams {
  PatchAttentionParams forward;  // but for out
  PatchHeads grad_out;
  void* grad_q;  // [patches, frames, heads, dim]
  void* grad_k;
  void* grad_v;
};

namespace cpu {
MIMO_CPU_KERNEL(void, patch_attention, const PatchAttentionParams&)
MIMO_CPU_KERNEL(void, patch_attention_backward, const PatchAttentionBackwardParams&)
}  // namespace cpu
namespace cuda {
LaunchError patch_attention(const PatchAttentionParams&, void* stream);
LaunchError patch_attention_backward(const PatchAttentionBackwardParams&, void* stream);
}  // namespace cuda

}  // namespace mimo
