// Rotary positions on the CPU: one pass over q and k, a row [heads, dim] of both at a time, with the factors of its
// position in the L1 cache. Half types are widened and narrowed head by head, there as well.
//
// Compiled without contraction of products and sums: results equal the definition's bit for bit.
#include "mimo/rotary.h"

#include "cpu/isa.h"
#include "cpu/rows.h"

namespace mimo::cpu::MIMO_ISA {
namespace {

constexpr int64_t kElementsPerPiece = 1 << 15;  // enough work (tens of microseconds) to be worth a thread

template <class C>
inline void rotate(const C* __restrict x, const C* __restrict cos, const C* __restrict sin, int64_t half,
                   C* __restrict out) {
  for (int64_t d = 0; d < half; ++d) {
    const C first = x[d], second = x[half + d];
    out[d] = first * cos[d] - second * sin[d];
    out[half + d] = second * cos[d] + first * sin[d];
  }
}

template <class S, class C>
void run(const RotaryParams& p) {
  const int64_t half = p.half, dim = 2 * half, per_row = (int64_t(p.q.heads) + p.k.heads) * dim;
  const RotaryHeads both[] = {p.q, p.k};
  parallel_for(int64_t(p.batch) * p.length, 1 + kElementsPerPiece / per_row, [&](int64_t from, int64_t to) {
    const Scratch<C> scratch(6 * half);
    C *cos = scratch.get(), *sin = cos + half, *wide = sin + half, *turned = wide + dim;
    for (int64_t row = from; row < to; ++row) {
      const int64_t b = row / p.length, t = row % p.length, table = (p.table_per_batch ? row : t) * half;
      for (int64_t d = 0; d < half; ++d) {
        cos[d] = p.cos[table + d];
        sin[d] = p.inverse ? -p.sin[table + d] : p.sin[table + d];
      }
      for (const RotaryHeads& heads : both) {
        const S* x = static_cast<const S*>(heads.data) + b * heads.batch_stride + t * heads.row_stride;
        S* out = static_cast<S*>(heads.out) + row * heads.heads * dim;
        for (int32_t h = 0; h < heads.heads; ++h, x += heads.head_stride, out += dim) {
          if constexpr (sizeof(S) == sizeof(C)) {
            rotate<C>(x, cos, sin, half, out);
          } else {
            widen_row(x, dim, wide);
            rotate<C>(wide, cos, sin, half, turned);
            narrow_row(turned, dim, out);
          }
        }
      }
    }
  });
}

}  // namespace

void rotary(const RotaryParams& p) {
  if (p.dtype == DType::f64) return run<double, double>(p);
  MIMO_FLOAT_OR_HALF(p.dtype, run<T, float>(p));
}

}  // namespace mimo::cpu::MIMO_ISA
