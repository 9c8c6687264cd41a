// One position per row through the backbone: parameters and launch prototypes (MiMo-Audio report, section 2.2).
#pragma once
#include "common/cpu_dispatch.h"
#include "mimo/decode_step.h"

namespace mimo {

struct BackboneStepParams {
  const void* hidden;          // [batch, dim]
  const BlockWeights* blocks;  // [layers], in host memory for CUDA as well
  const void* norm;            // [dim]
  KeyValuePages cache;
  const int64_t* lengths;  // [batch], at most `length`; null: `length` of every row
  const int64_t* padding;  // [batch], or null: no row has any
  const int64_t* ends;     // [batch], the last position that a row sees; null: its own
  const float *cos, *sin;  // [> length, head_dim / 2]
  void* out;               // [batch, dim]
  void* workspace;         // CUDA only: backbone_step_workspace(params) bytes
  BlockShape shape;
  int32_t layers, batch, length;
  DType dtype;
};

namespace cpu {
MIMO_CPU_KERNEL(void, backbone_step, const BackboneStepParams&)
}
namespace cuda {
int64_t backbone_step_workspace(const BackboneStepParams&);
LaunchError backbone_step(const BackboneStepParams&, void* stream);
}  // namespace cuda

}  // namespace mimo
