// linear on CUDA: the products of a decode step (decode_products.cuh) between a widening and a narrowing of the rows.
#include "cuda/decode_step.cuh"
#include "mimo/linear.h"

namespace mimo::cuda {
namespace {

constexpr int kThreads = 256;

struct Plan {
  float *x, *y;
  int64_t bytes;

  explicit Plan(const LinearParams& p) {
    Buffers buffers{static_cast<char*>(p.workspace)};
    x = buffers.take<float>(int64_t(p.rows) * p.width);
    y = buffers.take<float>(int64_t(p.rows) * p.outputs);
    bytes = buffers.used;
  }
};

template <class W>
__global__ void finish_kernel(const float* y, const W* bias, W* out, int outputs, int64_t count) {
  wait_for_previous_kernel();
  let_next_kernel_start();
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) narrow(y[i] + (bias ? widen(bias[i % outputs]) : 0.0f), out + i);
}

template <class W>
LaunchError run(const LinearParams& p, void* on) {
  const auto stream = static_cast<cudaStream_t>(on);
  const Plan plan(p);
  const int64_t count = int64_t(p.rows) * p.outputs;
  launch_widen<W>(p.x, plan.x, int64_t(p.rows) * p.width, stream);
  launch_product<false, W>(p.weight, plan.x, p.width, plan.y, p.outputs, p.rows, stream);
  MIMO_LAUNCH_EARLY(unsigned((count + kThreads - 1) / kThreads), kThreads, 0, stream, finish_kernel<W>)
  (plan.y, static_cast<const W*>(p.bias), static_cast<W*>(p.out), p.outputs, count);
  return MIMO_LAUNCH_ERROR();
}

}  // namespace

int64_t linear_workspace(const LinearParams& p) { return Plan(p).bytes; }

LaunchError linear(const LinearParams& p, void* stream) { return MIMO_FLOAT_OR_HALF(p.dtype, run<T>(p, stream)); }

}  // namespace mimo::cuda
