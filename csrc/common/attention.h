// Argument checks that the attention ops share: head width, scale of the scores; rows that kernels read in whole
// pieces.
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

// t, or a copy of it, with neighbouring elements in its last dimension and rows that begin at multiples of kAlignment.
inline const Tensor& with_aligned_rows(const Tensor& t, Hold& hold) {
  const auto aligned = [](const Tensor& x) {
    const int last = int(x.dim()) - 1;
    int64_t places = reinterpret_cast<intptr_t>(x.const_data_ptr());
    for (int i = 0; i < last; ++i) places |= x.size(i) > 1 ? x.stride(i) * int64_t(x.element_size()) : 0;
    return x.stride(last) == 1 && places % kAlignment == 0;
  };
  hold.push_back(aligned(t) ? t : torch::stable::contiguous(t));
  if (!aligned(hold.back())) hold.push_back(torch::stable::clone(hold.back()));
  return hold.back();
}

inline double score_scale(const char* op, std::optional<double> scale, int64_t dim) {
  const double value = scale.value_or(1.0 / std::sqrt(double(dim)));
  MIMO_CHECK(std::isfinite(value), op, ": scale must be finite, got ", value);
  return value;
}

}  // namespace mimo
