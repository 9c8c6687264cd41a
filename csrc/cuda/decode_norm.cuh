// The RMS norm of the rows that a decode step passes on, where no product takes it along.
#pragma once
#include "cuda/decode_state.cuh"

namespace mimo::cuda {

// out = RMS norm of x, a block per row.
template <class W, class O>
__global__ void __launch_bounds__(32 * kDecodeWarps)
    rms_norm_kernel(const float* x, const W* weight, O* out, int width, float eps) {
  __shared__ float parts[kDecodeWarps];
  constexpr int kThreads = 32 * kDecodeWarps;
  const int thread = int(threadIdx.y) * 32 + int(threadIdx.x);
  const float* row = x + int64_t(blockIdx.x) * width;
  wait_for_previous_kernel();
  let_next_kernel_start();
  float squares = 0.0f;
#pragma unroll 4
  for (int d = thread; d < width; d += kThreads) squares = __fmaf_rn(row[d], row[d], squares);
  squares = fold_warp(squares);
  if (threadIdx.x == 0) parts[threadIdx.y] = squares;
  __syncthreads();
  float sum = 0.0f;
  for (int i = 0; i < kDecodeWarps; ++i) sum += parts[i];
  const float scale = 1.0f / sqrtf(sum / float(width) + eps);
#pragma unroll 4
  for (int d = thread; d < width; d += kThreads) {
    narrow(row[d] * scale * widen(weight[d]), out + int64_t(blockIdx.x) * width + d);
  }
}

}  // namespace mimo::cuda
