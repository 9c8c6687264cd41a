// The check of rotary tables, for every op that takes them.
#pragma once
#include <optional>
#include <vector>

#include "common/torch_api.h"

namespace mimo {

using MaybeTensor = std::optional<Tensor>;

// What the parameters point to: copies of arguments whose layout the kernels do not read.
using Hold = std::vector<Tensor>;

// Where arrays begin, in bytes: what one instruction of the CUDA kernels reads.
inline constexpr int64_t kAlignment = 16;

struct RotaryTables {
  const float *cos = nullptr, *sin = nullptr;  // [positions, width / 2], or nullptr: no rotation
  int64_t positions = 0;
};

// Checks tables with a row per `what` ("position"), `needed` at least, for heads of `width`, against the op's first
// tensor; the arrays begin at multiples of kAlignment.
inline RotaryTables rotary_tables(const char* op, const MaybeTensor& cos, const MaybeTensor& sin,
                                  const char* first_name, const Tensor& first, int64_t width, const char* what,
                                  int64_t needed, Hold& hold) {
  MIMO_CHECK(cos.has_value() == sin.has_value(), op, ": cos and sin must be given together, got only ",
             cos ? "cos" : "sin");
  if (!cos) return {};
  RotaryTables tables;
  const auto data = [&](const char* name, const Tensor& t) {
    check_dim(op, name, t, 2, "[positions, head width / 2]");
    check_dtype(op, name, t, {ScalarType::Float});
    check_same_device(op, name, t, first_name, first);
    MIMO_CHECK(t.size(1) == width / 2, op, ": ", name, " must be [positions, head width / 2 = ", width / 2, "], got ",
               describe(t));
    MIMO_CHECK(t.size(0) >= needed, op, ": ", name, " must have a row per ", what, ", at least ", needed, ", got ",
               describe(t));
    hold.push_back(torch::stable::contiguous(t));
    if (reinterpret_cast<intptr_t>(hold.back().const_data_ptr()) % kAlignment) {
      hold.push_back(torch::stable::clone(hold.back()));
    }
    return hold.back().const_data_ptr<float>();
  };
  tables.cos = data("cos", *cos);
  tables.sin = data("sin", *sin);
  MIMO_CHECK(cos->size(0) == sin->size(0), op, ": sin must have the shape of cos ", shape_text(*cos), ", got ",
             describe(*sin));
  tables.positions = cos->size(0);
  return tables;
}

}  // namespace mimo
