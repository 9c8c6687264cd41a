// Products of bfloat16 pairs for attention (AVX512_BF16, chosen at run time: cpu_has_bf16): one instruction multiplies
// and adds two neighbours along the depth, twice what float32 does.
#pragma once
#include "cpu/half.h"
#include "cpu/isa.h"

#if defined(__AVX512F__)
#define MIMO_BF16 __attribute__((target("avx512bf16"), noinline))

namespace mimo::cpu::MIMO_ISA {

inline constexpr int kPairedWidth = 32;  // heads of multiples of it: whole vectors of pairs

// `count` numbers (a multiple of 16) -> as many bfloat16, two in each element.
MIMO_BF16 inline void round_pairs(const float* from, int count, uint32_t* to) {
  for (int i = 0; i < count; i += 16) {
    const __m256bh half = _mm512_cvtneps_pbh((__m512)load(from + i));
    std::memcpy(to + i / 2, &half, sizeof half);
  }
}

// Rows of bfloat16 numbers [count, width], in float32 -> [count / 2, width], two neighbours of a column in each
// element.
inline void pair_rows(const float* from, int count, int width, uint32_t* to) {
  for (int i = 0; i < count; i += 2) {
    const float *low = from + int64_t(i) * width, *high = low + width;
    for (int d = 0; d < width; d += kLanes<float>) {
      const Vec<uint32_t> a = (Vec<uint32_t>)load(low + d), b = (Vec<uint32_t>)load(high + d);
      store<uint32_t>(to + int64_t(i / 2) * width + d, (a >> 16) | (b & 0xffff0000u));
    }
  }
}

template <int kRows, int kVectors>
MIMO_BF16 inline void pairs_tile(const uint32_t* a, int64_t a_stride, const uint32_t* b, int64_t b_stride, int depth,
                                 float* c, int64_t c_stride, bool add) {
  __m512 sum[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      sum[r][v] = add ? _mm512_loadu_ps(c + r * c_stride + v * 16) : _mm512_setzero_ps();
    }
  }
  for (int k = 0; k < depth; ++k) {
    __m512bh column[kVectors];
    for (int v = 0; v < kVectors; ++v) column[v] = (__m512bh)_mm512_loadu_si512(b + k * b_stride + v * 16);
    for (int r = 0; r < kRows; ++r) {
      const __m512bh row = (__m512bh)_mm512_set1_epi32(int(a[r * a_stride + k]));
      for (int v = 0; v < kVectors; ++v) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], row, column[v]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) _mm512_storeu_ps(c + r * c_stride + v * 16, sum[r][v]);
  }
}

// c [kRows, columns] = a b, added to c where `add`: a [kRows, depth] and b [depth, columns] pairs, columns whole
// vectors.
template <int kRows>
void multiply_pairs(const uint32_t* a, int64_t a_stride, const uint32_t* b, int64_t b_stride, int depth, float* c,
                    int64_t c_stride, int columns, bool add) {
  int j = 0;
  for (; j + 32 <= columns; j += 32) {
    pairs_tile<kRows, 2>(a, a_stride, b + j, b_stride, depth, c + j, c_stride, add);
  }
  if (j < columns) pairs_tile<kRows, 1>(a, a_stride, b + j, b_stride, depth, c + j, c_stride, add);
}

}  // namespace mimo::cpu::MIMO_ISA
#endif
