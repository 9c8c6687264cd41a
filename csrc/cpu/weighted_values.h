// The second product of attention: rows of weights times values that lie in memory one after another, read once for a
// few rows and widened on the way. Every number is one chain of multiply-adds over the values.
#pragma once
#include "cpu/decode_step.h"

namespace mimo::cpu::MIMO_ISA {

// out[r][d] = weights[r] . column d of values [count, width], added to `out` where `add`: kRows rows, kVectors vectors
// from column d on, the last one of `lanes`.
template <int kRows, int kVectors, class T>
inline void weighted_tile(const float* weights, int64_t weights_stride, const T* values, int count, int width,
                          int lanes, float* out, int64_t out_stride, bool add) {
  constexpr int L = kLanes<float>;
  Vec<float> sum[kRows][kVectors] = {};
  for (int r = 0; add && r < kRows; ++r) {
    for (int i = 0; i < kVectors; ++i) {
      sum[r][i] = load_up_to(out + r * out_stride + i * L, kVectors > 1 ? L : lanes);
    }
  }
  for (int p = 0; p < count; ++p) {
    Vec<float> value[kVectors];
    for (int i = 0; i < kVectors; ++i) {
      const T* from = values + int64_t(p) * width + i * L;
      value[i] = kVectors > 1 ? load_wide(from) : load_up_to(from, lanes);
    }
    for (int r = 0; r < kRows; ++r) {
      for (int i = 0; i < kVectors; ++i) sum[r][i] += value[i] * weights[r * weights_stride + p];
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int i = 0; i < kVectors; ++i) {
      store_up_to(out + r * out_stride + i * L, sum[r][i], kVectors > 1 ? L : lanes);
    }
  }
}

// out [rows, out_stride] = weights [rows, weights_stride] x values [count, width], added where `add`.
template <class T>
void weighted_values(const float* weights, int64_t weights_stride, int rows, const T* values, int count, int width,
                     float* out, int64_t out_stride, bool add) {
  constexpr int L = kLanes<float>, kRows = kVectorBytes == 64 ? 4 : 2;
  const auto tile = [&]<int kCount>(int r) {
    const float* w = weights + r * weights_stride;
    float* to = out + r * out_stride;
    int d = 0;
    const auto columns = [&]<int kVectors>() {
      for (; d + kVectors * L <= width; d += kVectors * L) {
        weighted_tile<kCount, kVectors>(w, weights_stride, values + d, count, width, L, to + d, out_stride, add);
      }
    };
    columns.template operator()<4>();
    columns.template operator()<2>();
    for (; d < width; d += L) {
      const int lanes = width - d < L ? width - d : L;
      weighted_tile<kCount, 1>(w, weights_stride, values + d, count, width, lanes, to + d, out_stride, add);
    }
  };
  int r = 0;
  for (; r + kRows <= rows; r += kRows) tile.template operator()<kRows>(r);
  if (rows - r == 3) return tile.template operator()<3>(r);
  if (rows - r == 2) return tile.template operator()<2>(r);
  if (rows - r == 1) tile.template operator()<1>(r);
}

}  // namespace mimo::cpu::MIMO_ISA
