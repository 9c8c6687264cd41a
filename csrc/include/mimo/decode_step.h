// A Qwen2 block that decodes one position per row of a batch: its weights and sizes (MiMo-Audio report, section 2.2).
#pragma once
#include <cstdint>

#include "mimo/dtype.h"
#include "mimo/weight_format.h"

namespace mimo {

inline constexpr int kMaxDecodeHeadDim = 256, kMaxDecodeBatch = 65535, kMaxDecodeWidth = 1 << 20;

// The tensors of a block, all of one dtype (f32, f16 or bf16), but that the seven matrices of every block may be
// quantised, in one format (BlockShape); D: dim, F: ffn, W: head_dim.
struct BlockWeights {
  const void* norm_1;                   // [D]
  const void *q, *q_bias;               // [heads W, D], [heads W]
  const void *k, *k_bias, *v, *v_bias;  // [kv_heads W, D], [kv_heads W]
  const void* out;                      // [D, heads W]
  const void* norm_2;                   // [D]
  const void *gate, *up;                // [F, D]
  const void* down;                     // [D, F]
};

// Where the keys and values of positions lie: in pages that a table gives to the rows of a batch.
struct KeyValuePages {
  void* data;            // [layers, 2, count, kv_heads, size, head_dim]
  const int32_t* table;  // [batch, per_row]: the page of positions size * i and on; null: row b has page b only
  int32_t count, size, per_row;
};

struct BlockShape {
  int32_t dim, heads, kv_heads, head_dim, ffn;  // kv_heads divides heads
  float eps;                                    // of the RMS norms
  WeightFormat format;                          // of the matrices
};

}  // namespace mimo
