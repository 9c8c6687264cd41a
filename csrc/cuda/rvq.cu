// RVQ on CUDA.
//
// rvq_decode: one block per 8 rows, one warp per row; a lane owns every 32nd column, so the reads of an entry and the
// write of the row coalesce. The sum runs over layers in order, as in the reference: results are equal bit by bit.
#include "cuda/launch.h"
#include "mimo/rvq.h"

namespace mimo::cuda {
namespace {

template <class T>
__global__ void decode_kernel(RvqDecodeParams p) {
  const int64_t n = int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  if (n >= p.count) return;
  const int dim = p.codebooks.dim;
  for (int d = threadIdx.x; d < dim; d += 32) {
    T sum = 0;
    for (int r = 0; r < p.codebooks.layers; ++r) {
      const int64_t code = p.codes[r * p.count + n];
      // An index out of range traps, as torch's own indexing does on CUDA: checking on the host would synchronise.
      MIMO_DEVICE_CHECK(code >= 0 && code < p.codebooks.sizes[r]);
      sum += static_cast<const T*>(p.codebooks.entries[r])[code * dim + d];
    }
    static_cast<T*>(p.out)[n * dim + d] = sum;
  }
}

template <class T>
LaunchError decode(const RvqDecodeParams& p, cudaStream_t stream) {
  constexpr int kRows = 8;
  if (p.count == 0) return nullptr;
  MIMO_LAUNCH(unsigned((p.count + kRows - 1) / kRows), dim3(32, kRows), 0, stream, decode_kernel<T>)(p);
  return MIMO_LAUNCH_ERROR();
}

}  // namespace

LaunchError rvq_decode(const RvqDecodeParams& p, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  return p.dtype == DType::f64 ? decode<double>(p, s) : decode<float>(p, s);
}

}  // namespace mimo::cuda
