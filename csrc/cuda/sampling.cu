// sample on CUDA: one block per row (cuda/sampling.cuh), which reads the row from global memory, in fact the L2 cache,
// about five times. A batch of one text vocabulary keeps one multiprocessor busy.
#include "cuda/bad_data.cuh"
#include "cuda/sampling.cuh"
#include "mimo/sampling.h"

namespace mimo::cuda {
namespace {

template <class T, int kThreads>
__global__ void __launch_bounds__(kThreads, 1) sample_kernel(SampleParams p, BadDataReport report) {
  __shared__ typename RowSampler<kThreads>::Shared shared;
  const int row = int(blockIdx.x);
  const T* logits = static_cast<const T*>(p.logits) + int64_t(row) * p.vocabulary;
  const RowSampling& how = p.sampling;
  const double uniform = philox_uniform(uint64_t(how.seeds[row]), uint64_t(how.offsets[row]), p.stream);
  RowSampler<kThreads> sampler(shared);
  const int token = sampler.sample([=](int i) { return widen(logits[i]); }, p.vocabulary, how.temperature[row],
                                   how.top_k[row], how.top_p[row], uniform);
  if (threadIdx.x == 0) p.tokens[row] = drawn(token, row, report);
}

template <class T>
LaunchError sample_rows(const SampleParams& p, cudaStream_t stream) {
  constexpr int kShort = 8192;
  const BadDataReport report(p.sampling.op);
  if (p.vocabulary <= kShort) {
    MIMO_LAUNCH(unsigned(p.rows), 256, 0, stream, sample_kernel<T, 256>)(p, report);
  } else {
    MIMO_LAUNCH(unsigned(p.rows), 1024, 0, stream, sample_kernel<T, 1024>)(p, report);
  }
  return MIMO_LAUNCH_ERROR();
}

}  // namespace

LaunchError sample(const SampleParams& p, void* stream) {
  if (p.rows == 0) return nullptr;
  return MIMO_FLOAT_OR_HALF(p.dtype, sample_rows<T>(p, static_cast<cudaStream_t>(stream)));
}

}  // namespace mimo::cuda
