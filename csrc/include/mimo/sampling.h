// Sampling of tokens from logits: parameters and launch prototypes (MiMo-Audio report, section 2.2).
#pragma once
#include <cstdint>

#include "common/cpu_dispatch.h"
#include "mimo/bad_data.h"
#include "mimo/dtype.h"

namespace mimo {

// How each row of a batch is sampled; all arrays [rows].
struct RowSampling {
  const float* temperature;  // 0: the largest logit
  const int32_t* top_k;      // <= 0: all
  const float* top_p;        // >= 1: all
  const int64_t* seeds;      // of the request
  const int64_t* offsets;    // position within the request
  int64_t* invalid_row;      // CPU only, -1 before the call: a row that has NaN or no finite largest logit, if any
  BadData op;                // CUDA only: whose rows they are, should one be bad
};

inline constexpr int kMaxVocabulary = 1 << 24;

struct SampleParams {
  const void* logits;  // [rows, vocabulary], f32, f16 or bf16
  int64_t* tokens;     // [rows]
  RowSampling sampling;
  int32_t rows, vocabulary;
  uint32_t stream;  // which draw at this position
  DType dtype;
};

namespace cpu {
MIMO_CPU_KERNEL(void, sample, const SampleParams&)
}
namespace cuda {
LaunchError sample(const SampleParams&, void* stream);
}  // namespace cuda

}  // namespace mimo
