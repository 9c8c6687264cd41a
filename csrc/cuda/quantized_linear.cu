// quantized_linear on CUDA: rows of activations become int8, then a block per panel and row (cuda/quantized.cuh).
#include "cuda/quantized.cuh"
#include "mimo/quantized_linear.h"

namespace mimo::cuda {
namespace {

constexpr int64_t kRowsPerLaunch = 65535;

template <class S>
struct StoreWithBias {
  const S* bias;
  S* out;
  int32_t rows;

  __device__ void operator()(int64_t b, int64_t row, float value) const {
    narrow(bias ? value + widen(bias[row]) : value, out + b * rows + row);
  }
};

template <class S>
LaunchError multiply(const QuantizedLinearParams& p, void* on) {
  const auto stream = static_cast<cudaStream_t>(on);
  const int64_t most = p.count < kRowsPerLaunch ? p.count : kRowsPerLaunch;
  const QuantizedRows x = QuantizedRows::at(p.workspace, most, p.columns);
  for (int64_t first = 0; first < p.count; first += most) {
    const int64_t count = p.count - first < most ? p.count - first : most;
    launch_quantize_rows(static_cast<const S*>(p.x) + first * p.columns, x, count, p.columns, p.format, stream);
    const StoreWithBias<S> store{static_cast<const S*>(p.bias), static_cast<S*>(p.out) + first * p.rows, p.rows};
    launch_quantized_product({p.weight, p.format, p.rows, p.columns}, x, count, store, stream);
  }
  return MIMO_LAUNCH_ERROR();
}

}  // namespace

int64_t quantized_linear_workspace(const QuantizedLinearParams& p) {
  return QuantizedRows::bytes(p.count < kRowsPerLaunch ? p.count : kRowsPerLaunch, p.columns);
}

LaunchError quantized_linear(const QuantizedLinearParams& p, void* stream) {
  return MIMO_FLOAT_OR_HALF(p.dtype, multiply<T>(p, stream));
}

}  // namespace mimo::cuda
