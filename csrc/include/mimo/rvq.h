// Residual vector quantization: parameters and launch prototypes (MiMo-Audio report, section 2.1).
#pragma once
#include <cstdint>

#include "common/cpu_dispatch.h"
#include "mimo/dtype.h"

namespace mimo {

inline constexpr int kMaxCodebooks = 64;

// R codebooks of one width. Passed by value, so that a CUDA launch carries it in its arguments.
struct Codebooks {
  const void* entries[kMaxCodebooks];  // layer r: [sizes[r], dim], contiguous
  int32_t sizes[kMaxCodebooks];
  int32_t layers;
  int32_t dim;
};

struct RvqDecodeParams {
  Codebooks codebooks;
  const int64_t* codes;  // [codebooks.layers, count]
  void* out;             // [count, dim]
  int64_t count;
  DType dtype;  // f32 or f64
};

namespace cpu {
MIMO_CPU_KERNEL(void, rvq_decode, const RvqDecodeParams&)
}
namespace cuda {
LaunchError rvq_decode(const RvqDecodeParams&, void* stream);
}

}  // namespace mimo
