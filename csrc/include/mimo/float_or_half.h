// The choice of a kernel by dtype, for ops of float32, float16 and bfloat16.
#pragma once
#include "mimo/dtype.h"

// The value of an expression in which T names the element type of `dtype`: float, or one of the two half types as the
// kernels of a layer know them (MIMO_FLOAT_OR_HALF of cpu/half.h and cuda/half.h).
#define MIMO_FLOAT_OR_HALF_OF(F16, BF16, dtype, ...) \
  [&] {                                              \
    if ((dtype) == ::mimo::DType::f16) {             \
      using T = F16;                                 \
      return __VA_ARGS__;                            \
    }                                                \
    if ((dtype) == ::mimo::DType::bf16) {            \
      using T = BF16;                                \
      return __VA_ARGS__;                            \
    }                                                \
    using T = float;                                 \
    return __VA_ARGS__;                              \
  }()
