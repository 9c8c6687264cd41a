// Sliding-window attention over packed sequences: parameters and launch prototypes (MiMo-Audio report, section 2.1).
#pragma once
#include <cstdint>

#include "common/cpu_dispatch.h"
#include "mimo/attention.h"
#include "mimo/dtype.h"

namespace mimo {

// [T, H, D] with contiguous rows of D elements, for instance a slice of a fused [T, 3, H, D]. Rows, and those of the
// rotary tables, begin at multiples of 16 bytes.
struct PackedHeads {
  const void* data;
  int64_t row_stride;  // elements between rows
  int64_t head_stride;
};

struct WindowAttentionParams {
  PackedHeads q, k, v;
  const int32_t* cu_seqlens;  // [sequences + 1], or nullptr: one sequence of all rows
  const float* cos;           // [positions, dim / 2], or nullptr: no rotation
  const float* sin;
  void* out;  // [rows, heads, dim]
  void* lse;  // [heads, rows] float32 (float64 for f64): logarithm of the sum of exponentials of the scores
  double scale;
  int32_t sequences, rows, positions;
  int32_t heads, dim;
  int32_t left, right;  // from 0; no limit is `rows` or more
  DType dtype;          // of q, k, v, out and their gradients
};

struct WindowAttentionBackwardParams {
  WindowAttentionParams forward;  // out and lse as the forward pass left them
  PackedHeads grad_out, out;
  void* delta;   // scratch [heads, rows], dtype of lse: the sum over D of grad_out * out
  void* grad_q;  // [rows, heads, dim]
  void* grad_k;
  void* grad_v;
};

namespace cpu {
MIMO_CPU_KERNEL(void, window_attention, const WindowAttentionParams&)
MIMO_CPU_KERNEL(void, window_attention_backward, const WindowAttentionBackwardParams&)
}  // namespace cpu
namespace cuda {
LaunchError window_attention(const WindowAttentionParams&, void* stream);
LaunchError window_attention_backward(const WindowAttentionBackwardParams&, void* stream);
}  // namespace cuda

}  // namespace mimo
