// quantized_linear on the CPU: activations are quantised once, then panels of the weight are split over the threads
// (cpu/quantized.h).
#include "mimo/quantized_linear.h"

#include "cpu/quantized.h"
#include "cpu/rows.h"

namespace mimo::cpu::MIMO_ISA {
namespace {

template <class T>
void multiply(const QuantizedLinearParams& p) {
  constexpr int64_t kProductsPerTask = 1 << 18;
  const QuantizedRows x(p.count, p.columns, weight_zero(p.format));
  parallel_for(p.count, 1 + kProductsPerTask / 16 / p.columns, [&](int64_t begin, int64_t end) {
    const Scratch<float> row(p.columns);
    for (int64_t b = begin; b < end; ++b) {
      widen_row(static_cast<const T*>(p.x) + b * p.columns, p.columns, row.get());
      x.set(b, row.get());
    }
  });
  const QuantizedWeight weight{p.weight, p.format, p.rows, p.columns};
  const int64_t panels = (p.rows + kPanelRows - 1) / kPanelRows;
  parallel_for(panels, 1 + kProductsPerTask / kPanelRows / p.columns / p.count, [&](int64_t begin, int64_t end) {
    const int64_t last = end * kPanelRows < p.rows ? end * kPanelRows : p.rows;
    const auto store = [&](int64_t b, int64_t first, int count, const float* values) {
      float sum[kPanelRows] = {};
      if (p.bias) widen_row(static_cast<const T*>(p.bias) + first, count, sum);
      for (int i = 0; i < count; ++i) sum[i] += values[i];
      narrow_row(sum, count, static_cast<T*>(p.out) + b * p.rows + first);
    };
    quantized_product(weight, x, p.count, begin * kPanelRows, last, store);
  });
}

}  // namespace

void quantized_linear(const QuantizedLinearParams& p) { MIMO_FLOAT_OR_HALF(p.dtype, multiply<T>(p)); }

}  // namespace mimo::cpu::MIMO_ISA
