// Rotary positions of queries and keys: parameters and launch prototypes.
#pragma once
#include <cstdint>

#include "common/cpu_dispatch.h"
#include "mimo/dtype.h"

namespace mimo {

// [batch, length, heads, 2 half] with contiguous heads, for instance a slice of a fused projection; strides in
// elements.
struct RotaryHeads {
  const void* data;
  int64_t batch_stride, row_stride, head_stride;
  void* out;  // contiguous
  int32_t heads;
};

struct RotaryParams {
  RotaryHeads q, k;
  const float* cos;  // [length, half], or [batch, length, half] where table_per_batch
  const float* sin;
  int32_t batch, length, half;
  bool table_per_batch;
  bool inverse;  // rotates by the negative angles
  bool vectors;  // data, strides and halves are multiples of 16 bytes
  DType dtype;   // of q, k and the results
};

namespace cpu {
MIMO_CPU_KERNEL(void, rotary, const RotaryParams&)
}  // namespace cpu
namespace cuda {
LaunchError rotary(const RotaryParams&, void* stream);
}  // namespace cuda

}  // namespace mimo
