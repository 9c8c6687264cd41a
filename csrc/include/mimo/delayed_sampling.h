// One step of the patch decoder's output side: parameters and launch prototypes (MiMo-Audio report, section 2.2).
#pragma once
#include <cstdint>

#include "common/cpu_dispatch.h"
#include "mimo/dtype.h"
#include "mimo/sampling.h"

namespace mimo {

inline constexpr int kMaxChannels = 32;                // codebooks of a patch
inline constexpr int kMaxSampledWidth = 1 << 20;       // of hidden and of the embeddings
inline constexpr int kMaxSampledStep = (1 << 30) - 1;  // also the largest delay

// Codebook r is active where delays[r] <= step < delays[r] + group_size; its token is that of frame step - delays[r].
struct DelayedSamplingParams {
  const void* hidden;                    // [batch, dim]
  const void* heads[kMaxChannels];       // [vocabulary[r], dim]
  const void* embeddings[kMaxChannels];  // [vocabulary[r], embed_dim]
  int32_t vocabulary[kMaxChannels];
  int32_t empty_ids[kMaxChannels];  // never drawn
  int32_t delays[kMaxChannels];
  int64_t* tokens;  // [batch, group_size, channels]; the active ones are written
  void* next;       // [batch, embed_dim]: the sum of the drawn tokens' embeddings
  RowSampling sampling;
  void* workspace;  // CUDA only: delayed_sampling_workspace(params) bytes
  int32_t batch, dim, embed_dim, channels, group_size, step;
  DType dtype;  // of hidden, heads, embeddings and next: f32, f16 or bf16
};

namespace cpu {
MIMO_CPU_KERNEL(void, delayed_sampling, const DelayedSamplingParams&)
}
namespace cuda {
int64_t delayed_sampling_workspace(const DelayedSamplingParams&);
LaunchError delayed_sampling(const DelayedSamplingParams&, void* stream);
}  // namespace cuda

}  // namespace mimo
