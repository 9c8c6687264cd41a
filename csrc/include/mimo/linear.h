// Products of a few rows with a weight whose results do not depend on the batch: parameters and launch prototypes.
#pragma once
#include "common/cpu_dispatch.h"
#include "mimo/dtype.h"

namespace mimo {

inline constexpr int kMaxLinearRows = 65535, kMaxLinearWidth = 1 << 24;  // rows of x; columns, and rows of the weight

struct LinearParams {
  const void* x;       // [rows, width]
  const void* weight;  // [outputs, width]
  const void* bias;    // [outputs], or null
  void* out;           // [rows, outputs]
  void* workspace;     // CUDA only: linear_workspace(params) bytes
  int32_t rows, width, outputs;
  DType dtype;
};

namespace cpu {
MIMO_CPU_KERNEL(void, linear, const LinearParams&)
}
namespace cuda {
int64_t linear_workspace(const LinearParams&);
LaunchError linear(const LinearParams&, void* stream);
}  // namespace cuda

}  // namespace mimo
