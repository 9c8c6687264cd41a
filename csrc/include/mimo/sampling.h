// Sampling of tokens from logits: parameters and launch prototypes (MiMo-Audio report, section 2.2).
#pragma once
#include <cstdint>

#include "common/cpu_dispatch.h"
#include "mimo/dtype.h"

namespace mimo {

// How each row of a batch is sampled; all arrays [rows].
struct RowSampling {
  const float* temperature;  // 0: the largest logit
  const int32_t* top_k;      // <= 0: all
  const float* top_p;        // >= 1: all
  const int64_t* seeds;      // of the request
  const int64_t* offsets;    // position within the request
};

struct SampleParams {
  const void* logits;  // [rows, vocabulary], f32, f16 or bf16
  int64_t* tokens;     // [rows]
  RowSampling sampling;
  void* workspace;  // CUDA only: sample_workspace(params) bytes
  int32_t rows, vocabulary;
  uint32_t stream;  // which draw at this position
  DType dtype;
};

namespace cpu {
MIMO_CPU_KERNEL(void, sample, const SampleParams&)
}
namespace cuda {
int64_t sample_workspace(const SampleParams&);
LaunchError sample(const SampleParams&, void* stream);
}  // namespace cuda

}  // namespace mimo
