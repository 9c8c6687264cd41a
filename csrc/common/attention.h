// Argument checks that the attention ops share: head width, scale of the scores, rotary tables.
#pragma once
#include <cmath>
#include <optional>
#include <vector>

#include "common/torch_api.h"
#include "mimo/attention.h"

namespace mimo {

using MaybeTensor = std::optional<Tensor>;

// What the parameters point to: copies of arguments whose layout the kernels do not read.
using Hold = std::vector<Tensor>;

inline void check_head_dim(const char* op, int64_t dim, const Tensor& q) {
  MIMO_CHECK(dim >= kMinHeadDim && dim <= kMaxHeadDim && dim % 8 == 0, op, ": q must have a head width D of ",
             kMinHeadDim, " to ", kMaxHeadDim, " in steps of 8, got ", describe(q));
}

inline double score_scale(const char* op, std::optional<double> scale, int64_t dim) {
  const double value = scale.value_or(1.0 / std::sqrt(double(dim)));
  MIMO_CHECK(std::isfinite(value), op, ": scale must be finite, got ", value);
  return value;
}

struct RotaryTables {
  const float *cos = nullptr, *sin = nullptr;  // [positions, dim / 2], or nullptr: no rotation
  int64_t positions = 0;
};

// Checks tables for positions 0 .. needed - 1.
inline RotaryTables rotary_tables(const char* op, const MaybeTensor& cos, const MaybeTensor& sin, const Tensor& q,
                                  int64_t dim, int64_t needed, Hold& hold) {
  MIMO_CHECK(cos.has_value() == sin.has_value(), op, ": cos and sin must be given together, got only ",
             cos ? "cos" : "sin");
  if (!cos) return {};
  RotaryTables tables;
  const float** targets[] = {&tables.cos, &tables.sin};
  const Tensor* given[] = {&*cos, &*sin};
  const char* names[] = {"cos", "sin"};
  for (int i = 0; i < 2; ++i) {
    const Tensor& t = *given[i];
    check_dim(op, names[i], t, 2, "[positions, D / 2]");
    check_dtype(op, names[i], t, {ScalarType::Float});
    check_same_device(op, names[i], t, "q", q);
    MIMO_CHECK(t.size(1) == dim / 2, op, ": ", names[i], " must be [positions, D / 2 = ", dim / 2, "], got ",
               describe(t));
    MIMO_CHECK(t.size(0) >= needed, op, ": ", names[i], " must have a row per position, at least ", needed, ", got ",
               describe(t));
    hold.push_back(torch::stable::contiguous(t));
    *targets[i] = hold.back().const_data_ptr<float>();
  }
  MIMO_CHECK(cos->size(0) == sin->size(0), op, ": sin must have the shape of cos ", shape_text(*cos), ", got ",
             describe(*sin));
  tables.positions = cos->size(0);
  return tables;
}

}  // namespace mimo
