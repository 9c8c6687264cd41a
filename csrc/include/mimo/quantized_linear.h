// A product with a quantised weight matrix: parameters and launch prototypes.
#pragma once
#include "common/cpu_dispatch.h"
#include "mimo/dtype.h"
#include "mimo/weight_format.h"

namespace mimo {

struct QuantizedLinearParams {
  const void* x;          // [count, columns]
  const uint8_t* weight;  // [rows, quantized_row_bytes(format, columns)]
  const void* bias;       // [rows], or null
  void* out;              // [count, rows]
  void* workspace;        // CUDA only: quantized_linear_workspace(params) bytes
  int64_t count;
  int32_t rows, columns;
  WeightFormat format;
  DType dtype;  // of x, bias and out: f32, f16 or bf16
};

namespace cpu {
MIMO_CPU_KERNEL(void, quantized_linear, const QuantizedLinearParams&)
}
namespace cuda {
int64_t quantized_linear_workspace(const QuantizedLinearParams&);
LaunchError quantized_linear(const QuantizedLinearParams&, void* stream);
}  // namespace cuda

}  // namespace mimo
