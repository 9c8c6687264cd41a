// Products with quantised weights (mimo/weight_format.h), for few rows of activations and for many.
//
// Activations are quantised too, to int8 with a scale per 32 neighbours: 32 products of a weight row and an activation
// row are then exact integers, added up by VNNI's dot products 64 at a time, and meet both scales as one float32
// number. Float32 activations would cost more: the weights arrive faster than they can be widened.
//
// A panel of 16 weight rows is one vector of sums; it stays in the L1 or L2 cache while all rows of activations pass
// over it, eight at a time, so that memory is read once for the whole batch. Every number is one chain of
// multiply-adds over the groups in their order, whatever the tile, the batch or the threads.
#pragma once
#include <limits>

#include "cpu/half.h"
#include "cpu/isa.h"
#include "cpu/reduce.h"
#include "mimo/weight_format.h"

namespace mimo::cpu::MIMO_ISA {

// --- activations -----------------------------------------------------------------------------------------------------

// To the nearest integer, ties to even: of the rounded product, so no multiply-add may take its place.
inline __attribute__((always_inline)) Vec<int32_t> nearest(Vec<float> v) {
#if defined(__AVX512F__)
  return (Vec<int32_t>)_mm512_cvtps_epi32((__m512)v);
#elif defined(__AVX2__)
  return (Vec<int32_t>)_mm256_cvtps_epi32((__m256)v);
#elif defined(__SSE4_1__)
  return (Vec<int32_t>)_mm_cvtps_epi32((__m128)v);
#else
  Vec<int32_t> out;
  for (int i = 0; i < kLanes<float>; ++i) out[i] = int32_t(__builtin_rintf(v[i]));
  return out;
#endif
}

// Rows of activations as int8, a scale per group of 32, and what a group's products with weights, which are stored
// `zero` above their numbers, are too large by.
class QuantizedRows {
 public:
  QuantizedRows(int64_t count, int64_t width, int zero)
      : width_(width),
        groups_(width / kActivationGroup),
        zero_(zero),
        numbers_(count * width),
        scales_(count * groups_),
        offsets_(count * groups_) {}

  const int8_t* numbers(int64_t row) const { return &numbers_[row * width_]; }
  const float* scales(int64_t row) const { return &scales_[row * groups_]; }
  const int32_t* offsets(int64_t row) const { return &offsets_[row * groups_]; }
  int64_t groups() const { return groups_; }

  // A group's largest magnitude becomes 127; one with a number that is not finite makes all its products NaN.
  void set(int64_t row, const float* x) const {
    constexpr int L = kLanes<float>, kVectors = kActivationGroup / L;
    typedef int8_t Bytes __attribute__((vector_size(L)));
    for (int64_t g = 0; g < groups_; ++g, x += kActivationGroup) {
      Vec<float> v[kVectors], top{}, lost{};
      for (int i = 0; i < kVectors; ++i) {
        v[i] = load(x + i * L);
        top = larger<float>((Vec<float>)((Vec<int32_t>)v[i] & 0x7fffffff), top);
        lost += v[i] * 0.0f;
      }
      const float most = max_lane<float>(top), nan = sum_lanes<float>(lost), inverse = most > 0 ? 127.0f / most : 0;
      Vec<int32_t> sum{};
      for (int i = 0; i < kVectors; ++i) {
        const Vec<int32_t> number = nearest(v[i] * inverse);
        const Bytes bytes = __builtin_convertvector(number, Bytes);
        std::memcpy(&numbers_[row * width_ + g * kActivationGroup + i * L], &bytes, sizeof bytes);
        sum += number;
      }
      scales_[row * groups_ + g] = most / 127.0f + nan;
      offsets_[row * groups_ + g] = -zero_ * reduce_lanes<int32_t>(sum, [](auto a, auto b) { return a + b; });
    }
  }

 private:
  const int64_t width_, groups_;
  const int zero_;
  const Scratch<int8_t> numbers_;
  const Scratch<float> scales_;
  const Scratch<int32_t> offsets_;
};

// --- a group's products ----------------------------------------------------------------------------------------------

typedef Vec<uint8_t> WeightBytes;  // 4 columns of kLanes<float> rows

// What the weights of a group become in registers. Without VNNI, pairs of products are added in 16 bits, where eight
// pairs fit if weights are below 16; an int8 weight is 16 times its high half and its low half.
template <bool kInt4, bool kVnni>
struct WeightGroup {
  static constexpr int kParts = kInt4 || kVnni ? 1 : 2;
  WeightBytes part[kParts][8];

  static __attribute__((always_inline)) WeightBytes high_half(WeightBytes v) {
    return (WeightBytes)((Vec<uint16_t>)v >> 4) & 15;
  }

  // From the group's first line, at the first of the rows.
  inline __attribute__((always_inline)) explicit WeightGroup(const uint8_t* from) {
    constexpr int kLine = 4 * kPanelRows, kLines = kInt4 ? 4 : 8, kAhead = 4096;
    for (int i = 0; i < kLines; ++i) {
      const WeightBytes v = load(from + i * kLine);
      __builtin_prefetch(from + i * kLine + kAhead);
      if constexpr (kInt4) {
        part[0][2 * i] = v & 15;
        part[0][2 * i + 1] = high_half(v);
      } else if constexpr (kVnni) {
        part[0][i] = v;
      } else {
        part[0][i] = v & 15;
        part[1][i] = high_half(v);
      }
    }
  }

  // sum + the group . x [32].
  inline __attribute__((always_inline)) Vec<int32_t> dot(const int8_t* x, int32_t sum) const {
    if constexpr (kVnni) {
      Vec<int32_t> out = broadcast(sum);
#if defined(__AVX512F__)
      struct Four {
        int8_t x[4];
      };
      const Four* four = reinterpret_cast<const Four*>(x);
      for (int i = 0; i < 8; ++i) {
        asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(out) : "v"(part[0][i]), "m"(four[i]));
      }
#endif
      return out;
    } else {
      Vec<int32_t> out = dot_below_16(part[0], x);
      if constexpr (kParts == 2) out += dot_below_16(part[1], x) << 4;
      return out + sum;
    }
  }

  static inline __attribute__((always_inline)) Vec<int32_t> dot_below_16(const WeightBytes (&weights)[8],
                                                                         const int8_t* x) {
    Vec<int32_t> out{};
#if defined(__SSE4_1__)
    Vec<int16_t> pairs{};
    for (int i = 0; i < 8; ++i) {
      int32_t four;
      std::memcpy(&four, x + 4 * i, sizeof four);
#if defined(__AVX512F__)
      pairs += (Vec<int16_t>)_mm512_maddubs_epi16((__m512i)weights[i], _mm512_set1_epi32(four));
    }
    out = (Vec<int32_t>)_mm512_madd_epi16((__m512i)pairs, _mm512_set1_epi16(1));
#elif defined(__AVX2__)
      pairs += (Vec<int16_t>)_mm256_maddubs_epi16((__m256i)weights[i], _mm256_set1_epi32(four));
    }
    out = (Vec<int32_t>)_mm256_madd_epi16((__m256i)pairs, _mm256_set1_epi16(1));
#else
      pairs += (Vec<int16_t>)_mm_maddubs_epi16((__m128i)weights[i], _mm_set1_epi32(four));
    }
    out = (Vec<int32_t>)_mm_madd_epi16((__m128i)pairs, _mm_set1_epi16(1));
#endif
#else
    for (int i = 0; i < 8; ++i) {
      for (int row = 0; row < kLanes<float>; ++row) {
        for (int c = 0; c < 4; ++c) out[row] += int32_t(weights[i][4 * row + c]) * x[4 * i + c];
      }
    }
#endif
    return out;
  }
};

// --- products --------------------------------------------------------------------------------------------------------

// out[b][row] of 16 weight rows and kBatch rows of activations.
template <bool kInt4, bool kVnni, int kBatch>
inline void panel_tile(const WeightPanel& panel, int group, const QuantizedRows& x, int64_t first,
                       float (*out)[kPanelRows]) {
  constexpr int L = kLanes<float>, kGroupBytes = kPanelRows * kActivationGroup / (kInt4 ? 2 : 1);
  const int per_scale = group / kActivationGroup;
  for (int row = 0; row < kPanelRows; row += L) {
    const int8_t* numbers[kBatch];
    Vec<float> sum[kBatch] = {};
    for (int b = 0; b < kBatch; ++b) numbers[b] = x.numbers(first + b);
    const float* scales = x.scales(first);
    const int32_t* offsets = x.offsets(first);
    const uint8_t* weights = panel.numbers + 4 * row;
    Vec<float> scale = broadcast(1.0f);
    for (int64_t g = 0; g < x.groups(); ++g, weights += kGroupBytes) {
      const WeightGroup<kInt4, kVnni> loaded(weights);
      if constexpr (kInt4) {
        scale = load_wide(reinterpret_cast<const BFloat16*>(panel.scales) + g / per_scale * kPanelRows + row);
      }
      for (int b = 0; b < kBatch; ++b) {
        const Vec<int32_t> dot = loaded.dot(numbers[b] + g * kActivationGroup, offsets[b * x.groups() + g]);
        sum[b] += __builtin_convertvector(dot, Vec<float>) * (scale * scales[b * x.groups() + g]);
      }
    }
    if constexpr (!kInt4) scale = load(reinterpret_cast<const float*>(panel.scales) + row);
    for (int b = 0; b < kBatch; ++b) store(&out[b][row], kInt4 ? sum[b] : sum[b] * scale);
  }
}

struct QuantizedWeight {
  const uint8_t* data;
  WeightFormat format;
  int64_t rows, columns;
};

// Calls store(b, row, count, values) for weight rows row .. row + count - 1 of each panel in turn, all within [begin,
// end), and all rows b of x [0, batch).
template <bool kInt4, bool kVnni, class Store>
void quantized_panels(const QuantizedWeight& w, const QuantizedRows& x, int64_t batch, int64_t begin, int64_t end,
                      Store&& store) {
  constexpr int kMost = kVnni ? 8 : 4;
  float out[kMost][kPanelRows];
  const auto multiply = [&](const WeightPanel& panel, int64_t first) {
    const int64_t from = begin > first ? begin : first;
    const int64_t to = end < first + panel.height ? end : first + panel.height;
    const auto tile = [&]<int kCount>(int64_t b) {
      panel_tile<kInt4, kVnni, kCount>(panel, weight_group(w.format), x, b, out);
      for (int i = 0; i < kCount; ++i) store(b + i, from, int(to - from), out[i] + (from - first));
    };
    int64_t b = 0;
    for (; b + kMost <= batch; b += kMost) tile.template operator()<kMost>(b);
    if constexpr (kMost == 8) {
      for (; b + 4 <= batch; b += 4) tile.template operator()<4>(b);
    }
    for (; b + 2 <= batch; b += 2) tile.template operator()<2>(b);
    for (; b < batch; ++b) tile.template operator()<1>(b);
  };
  for (int64_t first = begin / kPanelRows * kPanelRows; first < end; first += kPanelRows) {
    const WeightPanel panel = weight_panel(w.data, w.format, w.rows, w.columns, first);
    if (panel.height == kPanelRows) {
      multiply(panel, first);
      continue;
    }
    // The last panel with the rows it lacks.
    const int64_t lines = w.columns / (kInt4 ? 8 : 4);
    const int64_t groups = kInt4 ? w.columns / weight_group(w.format) : 1, scale = kInt4 ? 2 : 4;
    const Scratch<uint8_t> whole(kPanelRows * quantized_row_bytes(w.format, w.columns));
    uint8_t *scales = whole.get(), *numbers = scales + groups * kPanelRows * scale;
    const auto spread = [&](const uint8_t* from, int64_t count, int64_t size, uint8_t* to) {
      std::memset(to, 0, size_t(count * kPanelRows * size));
      for (int64_t i = 0; i < count; ++i) {
        std::memcpy(to + i * kPanelRows * size, from + i * panel.height * size, size_t(panel.height * size));
      }
    };
    spread(panel.scales, groups, scale, scales);
    spread(panel.numbers, lines, 4, numbers);
    multiply({scales, numbers, panel.height}, first);
  }
}

template <class Store>
void quantized_product(const QuantizedWeight& w, const QuantizedRows& x, int64_t batch, int64_t begin, int64_t end,
                       Store&& store) {
  const bool int4 = is_int4(w.format);
  if constexpr (kVectorBytes == 64) {
    if (cpu_has_vnni()) {
      return int4 ? quantized_panels<true, true>(w, x, batch, begin, end, store)
                  : quantized_panels<false, true>(w, x, batch, begin, end, store);
    }
  }
  return int4 ? quantized_panels<true, false>(w, x, batch, begin, end, store)
              : quantized_panels<false, false>(w, x, batch, begin, end, store);
}

}  // namespace mimo::cpu::MIMO_ISA
