// Products of weight rows with a few vectors, y[b, o] = weight[o] . x[b], for layers whose weights are read from memory
// once per call and multiplied with a small batch.
//
// The weights stream through once: a tile of rows stays in the L1 cache while all vectors of the batch pass over it, a
// few at a time, with their sums in registers; bfloat16 and float16 are widened on the way. The last pass prefetches
// the next tile: rows are short (4 KB), and the hardware's prefetchers begin anew in each. Lanes are added up for
// several sums at once, which matters for rows of few vectors. Every y is one chain of multiply-adds over d and one
// order of the lanes, whatever the tile: a vector's results do not depend on its batch.
//
// One thread of a Sapphire Rapids (AVX-512, float32) reads a 268 MB matrix at 16 GB/s for one vector, as fast as it
// reads memory at all, and at 144 GB/s where it lies in the L2 cache: another order of the weights could not be faster
// in the first case, and hardly in the second, so they stay as they are released.
#pragma once
#include "cpu/half.h"
#include "cpu/isa.h"
#include "cpu/reduce.h"

namespace mimo::cpu::MIMO_ISA {

inline constexpr int kLinearPad = 16;  // x's rows are zero from `dim` up to a multiple of this
static_assert(kLinearPad % kLanes<float> == 0);

inline int64_t linear_padded(int64_t dim) { return (dim + kLinearPad - 1) / kLinearPad * kLinearPad; }

// The first `count` of kLanes<float> numbers, the rest zero.
template <class T>
inline Vec<float> load_part(const T* p, int count) {
  T part[kLanes<float>] = {};
  std::memcpy(part, p, size_t(count) * sizeof(T));
  return load_wide(part);
}

// --- sums of the lanes of several vectors ----------------------------------------------------------------------------

// Lanes without bit kStep: a folded at the distance kStep; lanes with it: b.
template <int kStep, int... kLane>
inline __attribute__((always_inline)) Vec<float> fold_two(Vec<float> a, Vec<float> b,
                                                          std::integer_sequence<int, kLane...>) {
  constexpr int L = kLanes<float>;
  return __builtin_shufflevector(a, b, (kLane & kStep ? kLane + L : kLane)...) +
         __builtin_shufflevector(a, b, (kLane & kStep ? (kLane ^ kStep) + L : kLane ^ kStep)...);
}

template <int kCount, int kStep>
inline __attribute__((always_inline)) void fold_all(Vec<float>* v) {
  constexpr auto lanes = std::make_integer_sequence<int, kLanes<float>>{};
  if constexpr (kStep > 0) {
    if constexpr (kCount == 1) {
      v[0] += swap_lanes<float, kStep>(v[0], lanes);
    } else {
      for (int i = 0; i < kCount / 2; ++i) v[i] = fold_two<kStep>(v[2 * i], v[2 * i + 1], lanes);
    }
    fold_all<(kCount + 1) / 2, kStep / 2>(v);
  }
}

// out[i] = sum_lanes(v[i]) with its very bits: the same folds, but lanes that a vector no longer needs take another's.
// kCount is a power of two.
template <int kCount>
inline __attribute__((always_inline)) void sum_lanes_of(Vec<float>* v, float* out) {
  constexpr int L = kLanes<float>;
  if constexpr (kCount > L) {
    sum_lanes_of<L>(v, out);
    sum_lanes_of<kCount - L>(v + L, out + L);
  } else {
    fold_all<kCount, L / 2>(v);
    for (int i = 0; i < kCount; ++i) {
      int lane = 0;  // bit j of i chose the side of the fold at L / 2^(j + 1)
      for (int bit = 1, step = L / 2; bit < kCount; bit *= 2, step /= 2) lane += i & bit ? step : 0;
      out[i] = v[0][lane];
    }
  }
}

// --- products --------------------------------------------------------------------------------------------------------

template <int kRows, int kBatch, class T>
inline void linear_tile(const T* weight, int64_t dim, int64_t ahead, const float* x, int64_t x_stride, float* y,
                        int64_t y_stride) {
  constexpr int lanes = kLanes<float>;
  Vec<float> sum[kBatch][kRows];
  for (int b = 0; b < kBatch; ++b) {
    for (int r = 0; r < kRows; ++r) sum[b][r] = Vec<float>{};
  }
  const auto add = [&](const Vec<float>(&w)[kRows], int64_t d) {
    for (int b = 0; b < kBatch; ++b) {
      const Vec<float> column = load(x + b * x_stride + d);
      for (int r = 0; r < kRows; ++r) sum[b][r] += w[r] * column;
    }
  };
  int64_t d = 0;
  for (; d + lanes <= dim; d += lanes) {
    Vec<float> w[kRows];
    for (int r = 0; r < kRows; ++r) {
      w[r] = load_wide(weight + r * dim + d);
      __builtin_prefetch(weight + r * dim + d + ahead);
    }
    add(w, d);
  }
  if (d < dim) {
    Vec<float> w[kRows];
    for (int r = 0; r < kRows; ++r) w[r] = load_part(weight + r * dim + d, int(dim - d));
    add(w, d);
  }
  for (int b = 0; b < kBatch; ++b) sum_lanes_of<kRows>(sum[b], y + b * y_stride);
}

// kRows rows of the weight with the whole batch.
template <int kRows, class T>
inline void linear_rows(const T* weight, int64_t dim, const float* x, int64_t x_stride, int64_t batch, float* y,
                        int64_t y_stride) {
  constexpr int kBatch = kVectorBytes == 64 ? 4 : 2;
  constexpr int64_t kTileBytes = 32 << 10;  // beyond it, the next tile would push x out of the L1 cache
  const bool fits = batch == 1 || kRows * dim * int64_t(sizeof(T)) <= kTileBytes;
  const auto tile = [&]<int kCount>(int64_t b) {
    const int64_t ahead = fits && b + kCount == batch ? kRows * dim : 0;
    linear_tile<kRows, kCount>(weight, dim, ahead, x + b * x_stride, x_stride, y + b * y_stride, y_stride);
  };
  int64_t b = 0;
  for (; b + kBatch <= batch; b += kBatch) tile.template operator()<kBatch>(b);
  for (; b < batch; ++b) tile.template operator()<1>(b);
}

// y[b, o] = weight[o] . x[b] for rows o in [begin, end) of weight [.., dim] and all b in [0, batch). x [batch,
// x_stride], zero from dim to linear_padded(dim); y [batch, y_stride].
template <class T>
void linear(const T* weight, int64_t dim, const float* x, int64_t x_stride, int64_t batch, float* y, int64_t y_stride,
            int64_t begin, int64_t end) {
  constexpr int kRows = 4, kRowsOfOne = 8;  // eight sums hide the latency of a multiply-add
  int64_t o = begin;
  if (batch == 1) {
    for (; o + kRowsOfOne <= end; o += kRowsOfOne)
      linear_rows<kRowsOfOne>(weight + o * dim, dim, x, x_stride, 1, y + o, 0);
  }
  for (; o + kRows <= end; o += kRows) linear_rows<kRows>(weight + o * dim, dim, x, x_stride, batch, y + o, y_stride);
  for (; o < end; ++o) linear_rows<1>(weight + o * dim, dim, x, x_stride, batch, y + o, y_stride);
}

}  // namespace mimo::cpu::MIMO_ISA
