// delayed_sampling on CUDA, three launches:
//   logits_kernel  a warp owns one row of one active head; its lanes read 16 bytes each, next to each other, and keep
//                  sums for kBatch rows of hidden, so that a weight is read once per kBatch rows
//   draw_kernel    a block per row and active codebook (cuda/sampling.cuh) writes the token
//   embed_kernel   adds up the tokens' embeddings in codebook order
// A lane's sum runs over d in steps that D alone fixes: a row's logits do not depend on its batch.
#include "cuda/bad_data.cuh"
#include "cuda/sampling.cuh"
#include "mimo/delayed_sampling.h"

namespace mimo::cuda {
namespace {

// The codebooks that a step samples, in order; their logits lie side by side in a row of `width`.
struct ActiveCodebooks {
  int count = 0, width = 0;
  int channel[kMaxChannels], first[kMaxChannels];

  explicit ActiveCodebooks(const DelayedSamplingParams& p) {
    for (int c = 0; c < p.channels; ++c) {
      if (p.step < p.delays[c] || p.step >= p.delays[c] + p.group_size) continue;
      channel[count] = c;
      first[count++] = width;
      width += p.vocabulary[c];
    }
  }
};

constexpr int kWarps = 8, kSampleThreads = 256;

// Two blocks per multiprocessor: with no number given, the compiler moves registers to memory for the sake of more.
template <class T, bool kVectors, int kBatch>
__global__ void __launch_bounds__(32 * kWarps, 2)
    logits_kernel(DelayedSamplingParams p, ActiveCodebooks active, float* logits) {
  const int at = int(blockIdx.x) * kWarps + int(threadIdx.y), lane = int(threadIdx.x);
  if (at >= active.width) return wait_for_previous_kernel();
  int i = 0;
  while (i + 1 < active.count && at >= active.first[i + 1]) ++i;
  const int dim = p.dim;
  const T* weight = static_cast<const T*>(p.heads[active.channel[i]]) + int64_t(at - active.first[i]) * dim;
  const int ahead = lane * int(128 / sizeof(T));
  if (ahead < dim) prefetch(weight + ahead);
  wait_for_previous_kernel();
  let_next_kernel_start();
  for (int b0 = 0; b0 < p.batch; b0 += kBatch) {
    const int rows = min(kBatch, p.batch - b0);
    const T* hidden = static_cast<const T*>(p.hidden) + int64_t(b0) * dim;
    float sum[kBatch] = {};
    if constexpr (kVectors) {
      constexpr int n = kColumnsOf<T>;
#pragma unroll 4
      for (int d = lane * n; d < dim; d += 32 * n) {
        const Columns<T> w = read_columns(weight + d);
#pragma unroll
        for (int b = 0; b < kBatch; ++b) {
          if (b >= rows) continue;
          const Columns<T> x = read_columns(hidden + int64_t(b) * dim + d);
          for (int j = 0; j < n; ++j) sum[b] = __fmaf_rn(widen(w.value[j]), widen(x.value[j]), sum[b]);
        }
      }
    } else {
      for (int d = lane; d < dim; d += 32) {
        const float w = widen(weight[d]);
#pragma unroll
        for (int b = 0; b < kBatch; ++b) {
          if (b < rows) sum[b] = __fmaf_rn(w, widen(hidden[int64_t(b) * dim + d]), sum[b]);
        }
      }
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      sum[b] = fold_warp(sum[b]);
      if (lane == 0 && b < rows) logits[int64_t(b0 + b) * active.width + at] = sum[b];
    }
  }
}

__global__ void __launch_bounds__(kSampleThreads, 2)
    draw_kernel(DelayedSamplingParams p, ActiveCodebooks active, const float* logits, BadDataReport report) {
  __shared__ RowSampler<kSampleThreads>::Shared shared;
  wait_for_previous_kernel();
  let_next_kernel_start();
  const int b = int(blockIdx.x), i = int(blockIdx.y), c = active.channel[i], frame = p.step - p.delays[c];
  const float* row = logits + int64_t(b) * active.width + active.first[i];
  const int empty = p.empty_ids[c];
  const RowSampling& how = p.sampling;
  const double uniform =
      philox_uniform(uint64_t(how.seeds[b]), uint64_t(how.offsets[b]), uint32_t(1 + frame * p.channels + c));
  RowSampler<kSampleThreads> sampler(shared);
  const int token = sampler.sample([=](int k) { return k == empty ? kNone : row[k]; }, p.vocabulary[c],
                                   how.temperature[b], how.top_k[b], how.top_p[b], uniform);
  if (threadIdx.x == 0) {
    p.tokens[(int64_t(b) * p.group_size + frame) * p.channels + c] = drawn(token, b, report);
  }
}

template <class T>
__global__ void embed_kernel(DelayedSamplingParams p, ActiveCodebooks active) {
  wait_for_previous_kernel();
  let_next_kernel_start();
  const int b = int(blockIdx.x), d = int(blockIdx.y * blockDim.x + threadIdx.x);
  if (d >= p.embed_dim) return;
  float sum = 0;
  for (int i = 0; i < active.count; ++i) {
    const int c = active.channel[i], frame = p.step - p.delays[c];
    const int64_t token = p.tokens[(int64_t(b) * p.group_size + frame) * p.channels + c];
    sum += widen(static_cast<const T*>(p.embeddings[c])[token * p.embed_dim + d]);
  }
  narrow(sum, static_cast<T*>(p.next) + int64_t(b) * p.embed_dim + d);
}

template <class T>
LaunchError step(const DelayedSamplingParams& p, cudaStream_t stream) {
  const ActiveCodebooks active(p);
  float* logits = static_cast<float*>(p.workspace);
  if (active.count > 0) {
    bool vectors = reads_whole_vectors<T>(p.hidden, p.dim);
    for (int i = 0; i < active.count; ++i) {
      vectors = vectors && reads_whole_vectors<T>(p.heads[active.channel[i]], p.dim);
    }
    const unsigned blocks = unsigned((active.width + kWarps - 1) / kWarps);
    const dim3 block(32, kWarps);
    if (!vectors) {
      MIMO_LAUNCH_EARLY(blocks, block, 0, stream, logits_kernel<T, false, 8>)(p, active, logits);
    } else if (p.batch == 1) {
      MIMO_LAUNCH_EARLY(blocks, block, 0, stream, logits_kernel<T, true, 1>)(p, active, logits);
    } else {
      MIMO_LAUNCH_EARLY(blocks, block, 0, stream, logits_kernel<T, true, 8>)(p, active, logits);
    }
    MIMO_LAUNCH_EARLY(dim3(unsigned(p.batch), unsigned(active.count)), kSampleThreads, 0, stream, draw_kernel)
    (p, active, logits, BadDataReport(p.sampling.op));
  }
  constexpr int kColumns = 128;
  MIMO_LAUNCH_EARLY(dim3(unsigned(p.batch), unsigned((p.embed_dim + kColumns - 1) / kColumns)), kColumns, 0, stream,
                    embed_kernel<T>)
  (p, active);
  return MIMO_LAUNCH_ERROR();
}

}  // namespace

int64_t delayed_sampling_workspace(const DelayedSamplingParams& p) {
  return int64_t(p.batch) * ActiveCodebooks(p).width * int64_t(sizeof(float));
}

LaunchError delayed_sampling(const DelayedSamplingParams& p, void* stream) {
  if (p.batch == 0) return nullptr;
  return MIMO_FLOAT_OR_HALF(p.dtype, step<T>(p, static_cast<cudaStream_t>(stream)));
}

}  // namespace mimo::cuda
