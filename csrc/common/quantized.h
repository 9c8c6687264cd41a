// The check of quantised weights that ops share.
#pragma once
#include "common/torch_api.h"
#include "mimo/weight_format.h"

namespace mimo {

// The format of a uint8 matrix for so many columns.
inline WeightFormat check_quantized(const char* op, const char* name, const Tensor& t, int64_t columns) {
  const WeightFormat format = quantized_format(columns, t.size(1));
  const auto bytes = [&](WeightFormat f) { return quantized_row_bytes(f, columns); };
  MIMO_CHECK(format != WeightFormat::dense, op, ": ", name, " must be of quantize_weight for ", columns,
             " columns, a multiple of 32: ", bytes(WeightFormat::int8), " (int8), ", bytes(WeightFormat::int4_32),
             " (int4, group 32) or, for a multiple of 128, ", bytes(WeightFormat::int4_128),
             " (int4, group 128) bytes per row, got ", describe(t));
  return format;
}

}  // namespace mimo
