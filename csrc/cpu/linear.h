// Products of weight rows with a few vectors, y[b, o] = weight[o] . x[b], for layers whose weights are read from memory
// once per call and multiplied with a small batch.
//
// The weights stream through once: a tile of kRows rows stays in the L1 cache while all vectors of the batch pass over
// it, kBatch at a time, with their kRows x kBatch sums in registers; bfloat16 and float16 are widened on the way. Every
// y is one chain of multiply-adds over d, whatever the tile: a vector's results do not depend on its batch.
#pragma once
#include "cpu/half.h"
#include "cpu/isa.h"
#include "cpu/reduce.h"

namespace mimo::cpu::MIMO_ISA {

inline constexpr int kLinearPad = 16;  // x's rows are zero from `dim` up to a multiple of this
static_assert(kLinearPad % kLanes<float> == 0);

inline int64_t linear_padded(int64_t dim) { return (dim + kLinearPad - 1) / kLinearPad * kLinearPad; }

template <int kRows, int kBatch, class T>
inline void linear_tile(const T* weight, int64_t dim, const float* x, int64_t x_stride, float* y, int64_t y_stride) {
  constexpr int lanes = kLanes<float>;
  Vec<float> sum[kRows][kBatch] = {};
  const auto add = [&](const Vec<float>(&w)[kRows], int64_t d) {
    for (int b = 0; b < kBatch; ++b) {
      const Vec<float> column = load(x + b * x_stride + d);
      for (int r = 0; r < kRows; ++r) sum[r][b] += w[r] * column;
    }
  };
  int64_t d = 0;
  for (; d + lanes <= dim; d += lanes) {
    Vec<float> w[kRows];
    for (int r = 0; r < kRows; ++r) w[r] = load_wide(weight + r * dim + d);
    add(w, d);
  }
  if (d < dim) {
    Vec<float> w[kRows];
    for (int r = 0; r < kRows; ++r) {
      T tail[lanes] = {};
      std::memcpy(tail, weight + r * dim + d, size_t(dim - d) * sizeof(T));
      w[r] = load_wide(tail);
    }
    add(w, d);
  }
  for (int r = 0; r < kRows; ++r) {
    for (int b = 0; b < kBatch; ++b) y[b * y_stride + r] = sum_lanes<float>(sum[r][b]);
  }
}

// kRows rows of the weight with the whole batch.
template <int kRows, class T>
inline void linear_rows(const T* weight, int64_t dim, const float* x, int64_t x_stride, int64_t batch, float* y,
                        int64_t y_stride) {
  constexpr int kBatch = kVectorBytes == 64 ? 4 : 2;
  int64_t b = 0;
  for (; b + kBatch <= batch; b += kBatch) {
    linear_tile<kRows, kBatch>(weight, dim, x + b * x_stride, x_stride, y + b * y_stride, y_stride);
  }
  for (; b < batch; ++b) linear_tile<kRows, 1>(weight, dim, x + b * x_stride, x_stride, y + b * y_stride, y_stride);
}

// y[b, o] = weight[o] . x[b] for rows o in [begin, end) of weight [.., dim] and all b in [0, batch). x [batch,
// x_stride], zero from dim to linear_padded(dim); y [batch, y_stride].
template <class T>
void linear(const T* weight, int64_t dim, const float* x, int64_t x_stride, int64_t batch, float* y, int64_t y_stride,
            int64_t begin, int64_t end) {
  constexpr int kRows = 4;
  int64_t o = begin;
  for (; o + kRows <= end; o += kRows) linear_rows<kRows>(weight + o * dim, dim, x, x_stride, batch, y + o, y_stride);
  for (; o < end; ++o) linear_rows<1>(weight + o * dim, dim, x, x_stride, batch, y + o, y_stride);
}

}  // namespace mimo::cpu::MIMO_ISA
