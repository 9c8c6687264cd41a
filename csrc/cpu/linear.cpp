// linear on the CPU: cpu/linear.h over pieces of the weight's rows. Every number is computed by one thread in one
// order.
#include "mimo/linear.h"

#include <algorithm>

#include "cpu/decode_step.h"

namespace mimo::cpu::MIMO_ISA {
namespace {

constexpr int64_t kBytesPerPiece = 256 << 10;  // of weights, times rows of x: worth a thread

template <class T>
void run(const LinearParams& p) {
  const Rows x(p.rows, p.width), y(p.rows, p.outputs);
  for (int64_t b = 0; b < p.rows; ++b) widen_row(static_cast<const T*>(p.x) + b * p.width, p.width, x[b]);
  const int64_t pieces = linear_padded(p.outputs) / kLinearPad;
  const int64_t bytes = int64_t(p.rows) * p.width * kLinearPad * int64_t(sizeof(T));
  parallel_for(pieces, 1 + kBytesPerPiece / std::max<int64_t>(bytes, 1), [&](int64_t from, int64_t to) {
    const int64_t begin = from * kLinearPad, end = std::min<int64_t>(to * kLinearPad, p.outputs);
    linear(static_cast<const T*>(p.weight), p.width, x[0], x.stride(), p.rows, y[0], y.stride(), begin, end);
    for (int64_t b = 0; b < p.rows; ++b) {
      if (p.bias) add_row(static_cast<const T*>(p.bias) + begin, int(end - begin), y[b] + begin);
      narrow_row(y[b] + begin, end - begin, static_cast<T*>(p.out) + b * p.outputs + begin);
    }
  });
}

}  // namespace

void linear(const LinearParams& p) { MIMO_FLOAT_OR_HALF(p.dtype, run<T>(p)); }

}  // namespace mimo::cpu::MIMO_ISA
