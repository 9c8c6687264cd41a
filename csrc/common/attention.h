// Argument checks that the attention ops share: head width, scale of the scores.
#pragma once
#include <cmath>
#include <optional>

#include "common/rotary.h"
#include "mimo/attention.h"

namespace mimo {

inline void check_head_dim(const char* op, int64_t dim, const Tensor& q) {
  MIMO_CHECK(dim >= kMinHeadDim && dim <= kMaxHeadDim && dim % 8 == 0, op, ": q must have a head width D of ",
             kMinHeadDim, " to ", kMaxHeadDim, " in steps of 8, got ", describe(q));
}

inline double score_scale(const char* op, std::optional<double> scale, int64_t dim) {
  const double value = scale.value_or(1.0 / std::sqrt(double(dim)));
  MIMO_CHECK(std::isfinite(value), op, ": scale must be finite, got ", value);
  return value;
}

}  // namespace mimo
