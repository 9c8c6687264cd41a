// What the CPU searches of RVQ share: rows of residuals, the float64 score, and the choice of a code from screened dot
// products. include/mimo/rvq.h defines exactness and derives the bound used here.
#pragma once
#include <cmath>

#include "cpu/isa.h"
#include "cpu/reduce.h"
#include "cpu/transpose.h"
#include "mimo/rvq.h"

namespace mimo::cpu::MIMO_ISA {

inline constexpr int kChunk = 16;     // columns that stay together in every layout: one cache line of float32
inline constexpr int kSumLanes = 32;  // of the float64 sums

inline int chunks_of(int dim) { return (dim + kChunk - 1) / kChunk; }

// Row of residuals, `step` elements from one chunk of 16 columns to the next, zero beyond the last column.
template <class T>
struct Row {
  T* data;
  int64_t step;
  T* chunk(int c) const { return data + c * step; }
};

// kLanes<double> elements as float64.
inline __attribute__((always_inline)) Vec<double> widen(const double* p) { return load(p); }
inline __attribute__((always_inline)) Vec<double> widen(const float* p) {
  typedef float Half __attribute__((vector_size(kVectorBytes / 2)));
  Half v;
  std::memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, Vec<double>);
}

// The 32 lanes of a float64 sum of products.
struct LaneSums {
  static constexpr int kPerChunk = kChunk / kLanes<double>;
  Vec<double> lanes[2 * kPerChunk] = {};

  template <int kHalf, class T>
  __attribute__((always_inline)) void add(const T* a, const T* b) {
#pragma GCC unroll 8
    for (int i = 0; i < kPerChunk; ++i) {
      lanes[kHalf * kPerChunk + i] += widen(a + i * kLanes<double>) * widen(b + i * kLanes<double>);
    }
  }
  double total() const {
    double v[kSumLanes];
    std::memcpy(v, lanes, sizeof v);
    for (int width = kSumLanes / 2; width; width /= 2) {
      for (int i = 0; i < width; ++i) v[i] += v[i + width];
    }
    return v[0];
  }
};

// sum of a[d] b[d] over d < dim in float64, in the order of include/mimo/rvq.h; b is contiguous.
template <class T>
double exact_dot(Row<T> a, const T* b, int dim) {
  LaneSums sums;
  const int whole = dim / kChunk;
  int c = 0;
  for (; c + 2 <= whole; c += 2) {
    sums.template add<0>(a.chunk(c), b + c * kChunk);
    sums.template add<1>(a.chunk(c + 1), b + (c + 1) * kChunk);
  }
  for (; c * kChunk < dim; ++c) {  // the last one or two chunks, padded with zeros
    T left[kChunk] = {}, right[kChunk] = {};
    const int width = dim - c * kChunk < kChunk ? dim - c * kChunk : kChunk;
    std::memcpy(left, a.chunk(c), size_t(width) * sizeof(T));
    std::memcpy(right, b + c * kChunk, size_t(width) * sizeof(T));
    const T *l = left, *q = right;
    c % 2 ? sums.template add<1>(l, q) : sums.template add<0>(l, q);
  }
  return sums.total();
}

// |row|^2 in the same order.
template <class T>
double square_of(Row<T> row, int dim) {
  LaneSums sums;
  const int whole = dim / kChunk;
  int c = 0;
  for (; c + 2 <= whole; c += 2) {
    sums.template add<0>(row.chunk(c), row.chunk(c));
    sums.template add<1>(row.chunk(c + 1), row.chunk(c + 1));
  }
  for (; c * kChunk < dim; ++c) {
    std::remove_const_t<T> tail[kChunk] = {};
    std::memcpy(tail, row.chunk(c), size_t(dim - c * kChunk < kChunk ? dim - c * kChunk : kChunk) * sizeof(T));
    const auto* t = tail;
    c % 2 ? sums.template add<1>(t, t) : sums.template add<0>(t, t);
  }
  return sums.total();
}

template <class T>
double square_of(const T* entry, int dim) {
  return square_of(Row<const T>{entry, kChunk}, dim);
}

// The first kLanes of `count` elements, zero beyond them.
template <class T>
inline __attribute__((always_inline)) Vec<T> load_part(const T* p, int64_t count) {
  if (count >= kLanes<T>) return load(p);
  Vec<T> v{};
  std::memcpy(&v, p, size_t(count) * sizeof(T));
  return v;
}

template <class T>
void load_row(Row<T> row, const T* x, int dim) {
  for (int c = 0; c * kChunk < dim; ++c) {
    const int width = dim - c * kChunk < kChunk ? dim - c * kChunk : kChunk;
    T* to = row.chunk(c);
    for (int i = width; i < kChunk; ++i) to[i] = 0;
    std::memcpy(to, x + c * kChunk, size_t(width) * sizeof(T));
  }
}

template <class T>
void subtract_entry(Row<T> row, const T* entry, int dim) {
  const int whole = dim / kChunk;
  for (int c = 0; c < whole; ++c) {
    T* r = row.chunk(c);
    for (int i = 0; i < kChunk; i += kLanes<T>) store(r + i, load<T>(r + i) - load(entry + c * kChunk + i));
  }
  T* r = row.chunk(whole);
  for (int d = whole * kChunk; d < dim; ++d) r[d - whole * kChunk] -= entry[d];
}

// One codebook with what screening needs of each entry; the arrays are padded to `padded` with entries that never win.
struct ScreenedCodebook {
  const float* entries;   // [size, dim]
  double* entry_squares;  // [size]
  float* square;          // |e|^2 rounded; infinity in the padding
  float* norm;            // >= |e|
  float* rounding;        // >= |e^ - e|, 0 where the screen uses e itself
  int size, padded;
  bool exact_squares;
};

inline float norm_above(double square) { return float(std::sqrt(square)) * kRvqRoundUp; }

// The norm from a sum of `dim` squares in float32, rounded up; squares below the normal range may be lost.
inline float norm_above(float square, int dim) {
  return std::sqrt(square + float(dim) * 0x1p-125f) * (1.0f + float(dim) * 0x1p-23f) * kRvqRoundUp;
}

inline constexpr int kMostCandidates = 256;  // if there are more, every entry is scored in float64

// Row . entry in float32.
inline float float_dot(Row<float> row, const float* entry, int dim) {
  constexpr int kVectors = kChunk / kLanes<float>;
  Vec<float> sums[2][kVectors] = {};
  const int whole = dim / kChunk;
  for (int c = 0; c < whole; ++c) {
    for (int i = 0; i < kVectors; ++i) {
      sums[c % 2][i] += load(row.chunk(c) + i * kLanes<float>) * load(entry + c * kChunk + i * kLanes<float>);
    }
  }
  Vec<float> sum{};
  for (int i = 0; i < kVectors; ++i) sum += sums[0][i] + sums[1][i];
  float total = sum_lanes<float>(sum);
  for (int d = whole * kChunk; d < dim; ++d) total += row.chunk(whole)[d - whole * kChunk] * entry[d];
  return total;
}

// Screens candidates again, in float32: keeps those within its bound, in order, and returns how many.
inline int keep_nearest(int* candidates, int count, const ScreenedCodebook& book, const RvqBound& bound, Row<float> row,
                        float row_norm, int dim) {
  float low[kMostCandidates], limit = __builtin_inff();
  for (int c = 0; c < count; ++c) {
    const int k = candidates[c];
    const float score = book.square[k] - 2 * float_dot(row, book.entries + int64_t(k) * dim, dim);
    const float norm = book.norm[k], error = norm * (bound.row * row_norm + bound.entry * norm) + bound.tiny;
    low[c] = score - error;
    limit = score + error < limit ? score + error : limit;
  }
  int kept = 0;
  for (int c = 0; c < count; ++c) {
    if (!(low[c] > limit)) candidates[kept++] = candidates[c];
  }
  return kept;
}

// The code of `row`, given its screened dot products with all entries. `row_rounding` >= |r^ - r|.
inline int choose(const float* dots, const ScreenedCodebook& book, const RvqBound& bound, Row<float> row,
                  double row_square, float row_rounding, int dim) {
  constexpr int lanes = kLanes<float>;
  const float row_norm = norm_above(row_square);
  const Vec<float> row_factor = broadcast(bound.row * row_norm + 2 * row_rounding);
  const Vec<float> rounding_factor = broadcast(2.01f * row_norm);  // 2 |r^|
  const auto error = [&](int k) {
    const Vec<float> norm = load(book.norm + k);
    return norm * (row_factor + bound.entry * norm) + (rounding_factor * load(book.rounding + k) + bound.tiny);
  };
  const auto score = [&](int k) { return load(book.square + k) - 2 * load(dots + k); };
  Vec<float> least = broadcast(__builtin_inff());
  for (int k = 0; k < book.padded; k += lanes) {
    const Vec<float> high = score(k) + error(k);
    least = high < least ? high : least;
  }
  float limit = least[0];
  for (int i = 1; i < lanes; ++i) limit = least[i] < limit ? least[i] : limit;

  int candidates[kMostCandidates], count = 0;
  for (int k = 0; k < book.padded && count <= kMostCandidates; k += lanes) {
    const auto excluded = score(k) - error(k) > limit;  // false for NaN, which so stays a candidate
    if (!any(~excluded)) continue;
    for (int i = 0; i < lanes && k + i < book.size; ++i) {
      if (excluded[i]) continue;
      if (count < kMostCandidates) candidates[count] = k + i;
      ++count;
    }
  }
  const bool all = count > kMostCandidates;
  if (row_rounding > 0 && count > 1 && !all) {
    count = keep_nearest(candidates, count, book, bound, row, row_norm, dim);
  }
  if (count == 1) return candidates[0];
  if (all) count = book.size;
  int best = 0;
  double best_score = 0;
  for (int c = 0; c < count; ++c) {
    const int k = all ? c : candidates[c];
    const float* entry = book.entries + int64_t(k) * dim;
    const double square = book.exact_squares ? book.entry_squares[k] : square_of(entry, dim);
    const double exact = square - 2 * exact_dot(row, entry, dim);
    if (c == 0 || exact < best_score) best = k, best_score = exact;
  }
  return best;
}

}  // namespace mimo::cpu::MIMO_ISA
