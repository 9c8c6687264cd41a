// The float64 sums of RVQ in the fixed order of include/mimo/rvq.h: lane l of a warp is lane l of the sum.
#pragma once
#include "cuda/launch.h"
#include "mimo/rvq.h"

namespace mimo::cuda {
namespace {

constexpr int kWarps = 8;  // warps per block, where a warp owns a row or an entry
constexpr unsigned kAll = ~0u;

unsigned blocks_of(int64_t count, int64_t per_block) { return unsigned((count + per_block - 1) / per_block); }

// Folds the 32 lanes of a sum; every lane gets the total.
__device__ __forceinline__ double fold_lanes(double sum) {
  for (int width = 16; width; width /= 2) sum += __shfl_xor_sync(kAll, sum, width);
  return sum;
}

template <class T>
__device__ double exact_square(const T* row, int dim) {
  double sum = 0;
#pragma unroll 4
  for (int d = int(threadIdx.x) % 32; d < dim; d += 32) sum += double(row[d]) * double(row[d]);
  return fold_lanes(sum);
}

// |entry|^2 - 2 row . entry
template <class T>
__device__ double exact_score(const T* row, const T* entry, int dim) {
  double square = 0, dot = 0;
#pragma unroll 4
  for (int d = int(threadIdx.x) % 32; d < dim; d += 32) {
    const double e = double(entry[d]);
    square += e * e;
    dot += double(row[d]) * e;
  }
  return fold_lanes(square) - 2 * fold_lanes(dot);
}

__device__ __forceinline__ float norm_above(double square) { return float(sqrt(square)) * kRvqRoundUp; }

}  // namespace
}  // namespace mimo::cuda
