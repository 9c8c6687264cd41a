// One row of logits -> one token: temperature, top-k, top-p and a draw, without sorting (reference/sampling.py).
//
// Both filters ask for the largest threshold above which lies enough: k entries, or top_p of the probability. select()
// finds it by narrowing an interval of scores: one pass adds up what lies above each of kThresholds evenly spaced
// scores, the interval between two of them that holds the answer is gathered, and so on until all that is left is
// equal; each pass leaves about 1 / (kThresholds + 1) of the entries. Top-k of a long row looks at the maxima of its
// blocks first: k of them reach the k-th largest maximum, so nothing below that can be among the k largest.
//
// Weights are e^(score - maximum) in float32; sums of more than a block are in float64 and run in an order that the row
// alone fixes, so a draw does not depend on threads or on the batch. The token is the first one at which the sum of the
// kept weights, in index order, exceeds uniform * their sum; removed entries weigh 0 and are never drawn.
#pragma once
#include <cmath>

#include "cpu/isa.h"
#include "cpu/reduce.h"
#include "cpu/vector_math.h"

namespace mimo::cpu::MIMO_ISA {

inline constexpr int kBlock = 16 * kLanes<float>;  // entries whose weights are summed in float32
inline constexpr float kInfinity = __builtin_inff(), kLowest = -__FLT_MAX__;

inline int64_t whole_vectors(int64_t count) { return (count + kLanes<float> - 1) / kLanes<float> * kLanes<float>; }

// Scratch memory for rows of up to `size` entries, used again by every row of a thread.
struct RowScratch {
  explicit RowScratch(int64_t size)
      : scores(whole_vectors(size)),
        weights(whole_vectors(size)),
        some_scores(whole_vectors(size)),
        some_weights(whole_vectors(size)),
        ids(whole_vectors(size)),
        block_sums(size / kBlock + 1) {}

  Scratch<float> scores, weights;            // the row; the caller writes the logits to scores
  Scratch<float> some_scores, some_weights;  // the part that select() still looks at
  Scratch<int32_t> ids;                      // of the entries that top-k kept
  Scratch<double> block_sums;
};

// Moves the values of the lanes where `keep` (all ones or zero) to the front of to[0 .. kLanes), of which the rest is
// overwritten too; returns how many.
template <class T>
inline __attribute__((always_inline)) int pack(Vec<int32_t> keep, Vec<T> values, T* to) {
#if defined(__AVX512F__)
  const __mmask16 mask = _mm512_movepi32_mask((__m512i)keep);
  store(to, (Vec<T>)_mm512_maskz_compress_epi32(mask, (__m512i)values));
  return __builtin_popcount(mask);
#else
  int count = 0;
  for (int i = 0; i < kLanes<T>; ++i) {
    to[count] = values[i];
    count -= keep[i];
  }
  return count;
#endif
}

inline void pad_row(float* row, int64_t count, float value) {
  for (int64_t i = count; i < whole_vectors(count); ++i) row[i] = value;
}

// Where a filter cuts.
struct Cut {
  float score;    // the largest one such that the entries at or above it weigh at least the target
  double above;   // weight of the entries above it
  int64_t equal;  // entries at it
};

// Cuts entries 0 .. count - 1, padded to whole vectors with weights of 0, at `target`. None is above `high`; those
// below `low` are not needed to reach it. What is still in question moves to `some_scores` and `some_weights`, which
// may be scores and weights themselves.
inline Cut select(const float* scores, const float* weights, int64_t count, double target, float low, float high,
                  float* some_scores, float* some_weights) {
  constexpr int kThresholds = 8, lanes = kLanes<float>;
  double above = 0;
  for (;;) {
    float thresholds[kThresholds];  // the last one is `high`: each pass parts the largest entries from others
    for (int j = 0; j < kThresholds; ++j) {
      const float part = float(j + 1) / kThresholds, between = low * (1 - part) + high * part;
      thresholds[j] = between < low ? low : (between > high || j + 1 == kThresholds ? high : between);
    }
    double mass[kThresholds] = {};
    for (int64_t begin = 0; begin < count; begin += kBlock) {
      const int64_t end = begin + kBlock < count ? begin + kBlock : count;
      Vec<float> sum[kThresholds] = {};
      for (int64_t i = begin; i < end; i += lanes) {
        const Vec<float> score = load(scores + i), weight = load(weights + i);
        for (int j = 0; j < kThresholds; ++j) sum[j] = score >= thresholds[j] ? sum[j] + weight : sum[j];
      }
      for (int j = 0; j < kThresholds; ++j) mass[j] += double(sum_lanes<float>(sum[j]));
    }
    int reached = kThresholds;
    while (reached > 0 && above + mass[reached - 1] < target) --reached;
    const float bottom = reached > 0 ? thresholds[reached - 1] : low;
    const float top = reached < kThresholds ? thresholds[reached] : kInfinity;
    if (reached < kThresholds) above += mass[reached];

    int64_t kept = 0;
    Vec<float> least = broadcast(kInfinity), most = broadcast(-kInfinity);
    for (int64_t i = 0; i < count; i += lanes) {
      const Vec<float> score = load(scores + i), weight = load(weights + i);
      const Vec<int32_t> keep = (score >= bottom) & (score < top) & (weight > 0.0f);
      if (!any(keep)) continue;
      pack(keep, weight, some_weights + kept);
      kept += pack(keep, score, some_scores + kept);
      least = keep & (score < least) ? score : least;
      most = keep & (score > most) ? score : most;
    }
    if (kept == 0) return {bottom, above, 0};  // rounding: all together do not quite reach the target
    low = -max_lane<float>(-least);
    high = max_lane<float>(most);
    if (low == high) return {low, above, kept};
    pad_row(some_scores, kept, -kInfinity);
    pad_row(some_weights, kept, 0.0f);
    scores = some_scores;
    weights = some_weights;
    count = kept;
  }
}

// Moves the entries at or above `bound` to the front, with their ids; returns how many.
inline int64_t gather(const RowScratch& row, int64_t count, float bound, bool numbered) {
  constexpr int lanes = kLanes<float>;
  Vec<int32_t> place;
  for (int i = 0; i < lanes; ++i) place[i] = i;
  int64_t kept = 0;
  for (int64_t i = 0; i < count; i += lanes) {
    const Vec<float> score = load(row.scores.get() + i);
    const Vec<int32_t> keep = score >= bound;
    if (!any(keep)) continue;
    pack(keep, numbered ? load(row.ids.get() + i) : place + int32_t(i), row.ids.get() + kept);
    kept += pack(keep, score, row.scores.get() + kept);
  }
  pad_row(row.scores.get(), kept, -kInfinity);
  return kept;
}

// A score that the `top_k` largest of `count` are sure to reach: that of the top_k-th largest block.
inline float least_of_blocks(const RowScratch& row, int64_t count, int32_t top_k, float least, float largest) {
  float *maxima = row.some_scores.get(), *ones = row.some_weights.get();
  int64_t blocks = 0;
  for (int64_t begin = 0; begin < count; begin += kBlock, ++blocks) {
    const int64_t end = begin + kBlock < count ? begin + kBlock : count;
    Vec<float> most = broadcast(-kInfinity);
    for (int64_t i = begin; i < end; i += kLanes<float>) most = larger<float>(most, load(row.scores.get() + i));
    maxima[blocks] = max_lane<float>(most);
    ones[blocks] = maxima[blocks] >= kLowest ? 1.0f : 0.0f;
  }
  if (blocks < top_k) return least;
  pad_row(maxima, blocks, -kInfinity);
  pad_row(ones, blocks, 0.0f);
  const Cut cut = select(maxima, ones, blocks, top_k, least, largest, maxima, ones);
  return cut.above + double(cut.equal) >= top_k ? cut.score : least;
}

// Leaves the top_k largest entries and what ties with the last; returns how many.
inline int64_t keep_top_k(const RowScratch& row, int64_t count, int32_t top_k, float least, float largest) {
  const int64_t left = gather(row, count, least_of_blocks(row, count, top_k, least, largest), false);
  if (left <= top_k) return left;
  for (int64_t i = 0; i < whole_vectors(left); ++i) row.weights[i] = i < left ? 1.0f : 0.0f;
  const Cut cut = select(row.scores.get(), row.weights.get(), left, top_k, least, largest, row.some_scores.get(),
                         row.some_weights.get());
  return gather(row, left, cut.score, true);
}

// Sets the weights to weight_at(i), vector by vector; returns their sum, by blocks, whose sums it leaves.
template <class F>
inline double set_weights(const RowScratch& row, int64_t count, F&& weight_at) {
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t end = begin + kBlock < count ? begin + kBlock : count;
    Vec<float> sum{};
    for (int64_t i = begin; i < end; i += kLanes<float>) {
      const Vec<float> weight = weight_at(i);
      store(row.weights.get() + i, weight);
      sum += weight;
    }
    total += row.block_sums[begin / kBlock] = double(sum_lanes<float>(sum));
  }
  return total;
}

// Takes the weight from what top_p removes; returns the sum of the rest.
inline double keep_top_p(const RowScratch& row, int64_t count, float top_p, float largest, double total) {
  // What weighs less than (1 - top_p) * total / count never belongs to it: all of that together is less than 1 - top_p.
  const double least = double(largest) + std::log((1 - double(top_p)) * total / double(count)) - 1e-3 -
                       1e-6 * std::fabs(double(largest));
  const float low = least > double(kLowest) ? float(least) : kLowest;
  const double target = top_p * total;
  const Cut cut = select(row.scores.get(), row.weights.get(), count, target, low, largest, row.some_scores.get(),
                         row.some_weights.get());
  int64_t drop = 0;  // of equal entries, the first
  if (cut.equal > 1) {
    const double weight = exp(broadcast(cut.score - largest))[0];
    drop = cut.equal - 1;
    while (drop > 0 && cut.above + double(cut.equal - drop) * weight < target) --drop;
  }
  return set_weights(row, count, [&](int64_t i) {
    const Vec<float> score = load(row.scores.get() + i);
    Vec<float> weight = score >= cut.score ? load(row.weights.get() + i) : Vec<float>{};
    for (int j = 0; drop > 0 && any(score == cut.score) && j < kLanes<float>; ++j) {
      if (score[j] == cut.score && drop > 0) weight[j] = 0, --drop;
    }
    return weight;
  });
}

// The first entry at which the sum of weights exceeds `goal`; the last with a weight if rounding hides it.
inline int64_t pick(const RowScratch& row, int64_t count, double goal) {
  double sum = 0, before = 0;
  int64_t chosen = 0;
  for (int64_t b = 0; b * kBlock < count && sum <= goal; ++b) {
    if (row.block_sums[b] <= 0) continue;
    chosen = b;
    before = sum;
    sum += row.block_sums[b];
  }
  int64_t token = -1;
  for (int64_t i = chosen * kBlock; i < count && i < (chosen + 1) * kBlock && before <= goal; ++i) {
    if (row.weights[i] <= 0) continue;
    token = i;
    before += row.weights[i];
  }
  return token;
}

// The token that `uniform` in [0, 1) draws from the logits in row.scores[0 .. count), which are overwritten; -1 if one
// is NaN or the largest of logits / temperature is not finite.
inline int64_t sample_row(const RowScratch& row, int64_t count, float temperature, int32_t top_k, float top_p,
                          double uniform) {
  constexpr int lanes = kLanes<float>;
  float* scores = row.scores.get();
  pad_row(scores, count, -kInfinity);
  const float divisor = temperature == 0 ? 1.0f : temperature;
  Vec<float> lowest = broadcast(kInfinity), most = broadcast(-kInfinity);
  Vec<int32_t> unordered{};
  for (int64_t i = 0; i < count; i += lanes) {
    const Vec<float> score = load(scores + i) / divisor;
    store(scores + i, score);
    most = larger<float>(most, score);
    lowest = (score >= kLowest) & (score < lowest) ? score : lowest;
    unordered |= score != score;
  }
  const float least = -max_lane<float>(-lowest), largest = max_lane<float>(most);
  if (any(unordered) || !(largest >= kLowest && largest < kInfinity)) return -1;
  if (temperature == 0) {
    int64_t token = 0;
    while (!any(load(scores + token) == largest)) token += lanes;
    while (scores[token] != largest) ++token;
    return token;
  }
  const bool chosen = top_k > 0 && top_k < count;
  if (chosen) count = keep_top_k(row, count, top_k, least, largest);
  double total = set_weights(row, count, [&](int64_t i) { return exp(load(scores + i) - largest); });
  if (top_p > 0 && top_p < 1) total = keep_top_p(row, count, top_p, largest, total);
  const int64_t token = pick(row, count, uniform * total);
  return chosen ? row.ids[token] : token;
}

}  // namespace mimo::cpu::MIMO_ISA
