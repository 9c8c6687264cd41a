// One row of logits -> one token by one block, without sorting (reference/sampling.py; cpu/sampling.h is its CPU twin).
//
// Weights are e^(score - largest) in fixed point, 2^-39 of the largest: integer sums come out the same in any order, so
// that blocks may add up and gather as they like and a draw depends on its row alone. What lies more than kReach below
// the largest score weighs nothing.
//
//   largest   the largest logit and where it is: all that a greedy row wants
//   cut       where top-k, then top-p, cut. A histogram over the distance from the largest score, of counts or weights,
//             says in which of kBins the cut lies. That bin's scores go to shared memory if they are few enough, and
//             histograms over their keys, integers in the order of the scores, narrow it to one of them.
//   pick      the first entry at which the sum in index order exceeds a goal: every warp adds up a part, then the part
//             that holds the goal is split again
//
// A row of up to kScores entries is divided by the temperature once, into shared memory; a longer one in every pass.
#pragma once
#include "cuda/bad_data.cuh"
#include "cuda/warp.cuh"
#include "mimo/philox.h"
#include "mimo/sampling.h"

namespace mimo::cuda {

using Mass = unsigned long long;
inline constexpr float kOneMass = 0x1p39f;  // times kMaxVocabulary still below 2^64
inline constexpr float kHighestScore = 3.402823466e38f, kNone = -__builtin_inff();
inline constexpr float kReach = 28.0f;  // e^-28 rounds to no mass
inline constexpr int kBins = 2048, kScores = 2048;
// What RowSampler::sample returns for a row that cannot be sampled: -1 - part (mimo/bad_data.h).
inline constexpr int kNoToken = -1;

// The token to write for row `row`: 0 where sample() gave none, which is reported.
__device__ __forceinline__ int drawn(int token, int64_t row, const BadDataReport& report) {
  if (token >= 0) return token;
  report(row, uint8_t(kNoToken - token));
  return 0;
}

// Integers in the order of the floats; both zeros are one. NaN and +inf come last.
__device__ __forceinline__ unsigned key_of(float x) {
  if (!(x <= kHighestScore)) return ~0u;
  const unsigned bits = __float_as_uint(x + 0.0f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float score_of(unsigned key) {
  return __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key);
}
inline constexpr unsigned kLowestKey = 0x00800000u, kHighestKey = 0xff7fffffu;  // of the largest finite numbers

template <int kThreads>
class RowSampler {
  static constexpr int kWarps = kThreads / 32, kOwnBins = kBins / kThreads;
  static constexpr unsigned kAll = ~0u;
  static_assert(kBins % kThreads == 0);

 public:
  struct Shared {
    float scores[kScores];
    unsigned low[kBins], high[kBins];  // halves of the bins' sums
    Mass partial[kWarps], other[kWarps];
    Mass above, own;  // what locate() has found
    int bin, gathered;
  };

  __device__ explicit RowSampler(Shared& memory)
      : shared(memory), thread(int(threadIdx.x)), lane(thread % 32), warp(thread / 32) {}

  // The token that `uniform` in [0, 1) draws from logit(0) .. logit(count - 1); the same for every thread. Below 0
  // where a logit is NaN, the largest score is not finite, or a setting is not one.
  template <class Logit>
  __device__ int sample(Logit logit, int count, float temperature, int top_k, float top_p, double uniform) {
    if (!(temperature >= 0 && temperature <= kHighestScore)) return kNoToken - kBadTemperature;
    if (top_p != top_p) return kNoToken - kBadTopP;
    Mass best = 0;  // key of the largest logit, then the complement of its index: the first of equal ones wins
    unsigned least = ~0u;
    each<8>(logit, thread, count, kThreads, [&](int i, float x) {
      const unsigned key = key_of(x);
      const Mass at = Mass(key) << 32 | unsigned(~i);
      best = at > best ? at : best;
      if (key >= kLowestKey) least = min(least, key);
    });
    extremes(least, best);
    const unsigned top = unsigned(best >> 32);
    if (top < kLowestKey || top > kHighestKey) return kNoToken - kBadLogits;
    if (temperature == 0) return int(~unsigned(best));
    const float largest = score_of(top) / temperature;
    if (!(fabsf(largest) <= kHighestScore)) return kNoToken - kBadLogits;

    const bool in_shared = count <= kScores;
    if (in_shared) {
      for (int i = thread; i < count; i += kThreads) shared.scores[i] = logit(i) / temperature;
    }
    const float* here = shared.scores;
    const auto score = [=](int i) { return in_shared ? here[i] : logit(i) / temperature; };
    // kBins over the distances 0 .. reach.
    const float reach = fminf(largest - score_of(least) / temperature, kReach);
    const float bins_per_unit = reach > 0 ? fminf(float(kBins) / reach, kHighestScore) : 0;
    const auto bin_of = [=](float s) { return min(int((largest - s) * bins_per_unit), kBins - 1); };
    const auto mass = [=](float s) { return Mass(rintf(expf(s - largest) * kOneMass)); };

    const bool nucleus = top_p > 0 && top_p < 1;
    unsigned cut = 0;  // entries whose scores have smaller keys are removed
    int first = 0;     // and of those at the cut the ones before this
    Mass total = 0, goal = 0, above = 0, at_cut = 0;
    for (int filter = top_k > 0 && top_k < count ? 0 : 1; filter < 2; ++filter) {
      const bool by_mass = filter == 1;
      const auto weight = [=](float s) { return !by_mass ? Mass(1) : key_of(s) >= cut ? mass(s) : Mass(0); };
      clear();
      each<4>(score, thread, count, kThreads, [&](int, float s) {
        if (largest - s <= reach) add(bin_of(s), weight(s));
      });
      if (by_mass) {
        total = locate(0);
        if (!nucleus) break;
      }
      const Mass target = by_mass ? Mass(ceil(double(top_p) * double(total))) : Mass(top_k);
      if (locate(target) < target) continue;  // top-k of a row that has fewer entries with a weight
      const int bin = shared.bin;
      above = shared.above;
      at_cut = shared.own;
      // Of that bin: smallest and largest key; its scores, as far as there is room.
      unsigned low = ~0u;
      Mass high = 0;
      if (thread == 0) shared.gathered = 0;
      __syncthreads();
      each<4>(score, thread, count, kThreads, [&](int, float s) {
        if (!(largest - s <= reach) || bin_of(s) != bin || weight(s) == 0) return;
        const unsigned key = key_of(s);
        low = min(low, key);
        high = high > key ? high : key;
        if (in_shared) return;
        const int place = atomicAdd(&shared.gathered, 1);
        if (place < kScores) shared.scores[place] = s;
      });
      extremes(low, high);
      unsigned last = unsigned(high);
      const bool few = in_shared || shared.gathered <= kScores;
      const int left = in_shared || !few ? count : shared.gathered;
      const auto left_score = [=](int i) { return few ? here[i] : score(i); };
      while (low < last) {
        int shift = 0;
        while ((last - low) >> shift >= unsigned(kBins)) ++shift;
        clear();
        each<4>(left_score, thread, left, kThreads, [&](int, float s) {
          const unsigned key = key_of(s);
          if (key >= low && key <= last) add(int((last - key) >> shift), weight(s));
        });
        locate(target - above);
        above += shared.above;
        at_cut = shared.own;
        last -= unsigned(shared.bin) << shift;
        const unsigned width = (1u << shift) - 1;
        low = last - low > width ? last - width : low;
      }
      cut = last;
      if (!by_mass) continue;
      // Of equal entries at the cut the last stay, as many as the target needs, at least one.
      const Mass each_weighs = mass(score_of(cut)), equal = at_cut / each_weighs;
      Mass needed = target > above ? (target - above + each_weighs - 1) / each_weighs : 1;
      needed = needed < 1 ? 1 : needed < equal ? needed : equal;
      total = above + needed * each_weighs;
      goal = equal - needed;
      first = goal > 0 ? -1 : 0;
    }

    int token = 0;
    do {  // once for `first` where that is not known, once for the token
      const bool ties = first < 0;
      if (!ties) goal = goal_of(uniform, total);
      token = pick(
          score,
          [=](int i, float s) {
            const unsigned key = key_of(s);
            if (ties) return Mass(key == cut);
            return key > cut || (key == cut && i >= first) ? mass(s) : Mass(0);
          },
          count, goal);
      if (!ties) break;
      first = token;
    } while (true);
    return token;
  }

 private:
  static __device__ Mass goal_of(double uniform, Mass total) {
    const Mass goal = Mass(uniform * double(total));
    return goal < total ? goal : total - 1;
  }

  // body(i, score(i)) for i = first, first + stride, .. below end. The scores are read kAhead at a time: their way
  // from the L2 cache is long, and a block has few warps to hide it behind.
  template <int kAhead, class Score, class Body>
  static __device__ __forceinline__ void each(Score score, int first, int end, int stride, Body body) {
#pragma unroll 1
    for (int i = first; i < end; i += kAhead * stride) {
      float s[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; ++j) s[j] = i + j * stride < end ? score(i + j * stride) : 0;
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        if (i + j * stride < end) body(i + j * stride, s[j]);
      }
    }
  }

  // The smallest and the largest of all threads, in every thread.
  __device__ void extremes(unsigned& least, Mass& most) {
    for (int bits = 16; bits; bits /= 2) {
      least = min(least, __shfl_xor_sync(kAll, least, bits));
      const Mass theirs = __shfl_xor_sync(kAll, most, bits);
      most = theirs > most ? theirs : most;
    }
    if (lane == 0) shared.partial[warp] = most, shared.other[warp] = least;
    __syncthreads();
#pragma unroll 1
    for (int w = 0; w < kWarps; ++w) {
      most = shared.partial[w] > most ? shared.partial[w] : most;
      least = min(least, unsigned(shared.other[w]));
    }
    __syncthreads();
  }

  __device__ void clear() {
    for (int i = thread; i < kBins; i += kThreads) shared.low[i] = shared.high[i] = 0;
    __syncthreads();
  }

  // Two additions of 32 bits, of which the second is mostly nothing: the hardware adds no 64 bits in shared memory.
  __device__ __forceinline__ void add(int bin, Mass weight) {
    const unsigned low = unsigned(weight), before = atomicAdd(&shared.low[bin], low);
    const unsigned high = unsigned(weight >> 32) + (before + low < before);
    if (high) atomicAdd(&shared.high[bin], high);
  }

  // After add() by all threads: the first bin at which the bins together reach `target`, if that is more than 0 and
  // they do; shared.above is the sum before it, shared.own its own. Returns the sum of all bins.
  __device__ Mass locate(Mass target) {
    __syncthreads();
    Mass own[kOwnBins], sum = 0;
#pragma unroll
    for (int j = 0; j < kOwnBins; ++j) {
      const int bin = thread * kOwnBins + j;
      own[j] = Mass(shared.high[bin]) << 32 | shared.low[bin];
      sum += own[j];
    }
    Mass through = sum;  // of the warp's threads up to this one
    for (int step = 1; step < 32; step *= 2) {
      const Mass before = __shfl_up_sync(kAll, through, step);
      if (lane >= step) through += before;
    }
    if (lane == 31) shared.partial[warp] = through;
    __syncthreads();
    Mass all = 0, above = through - sum;
#pragma unroll 1
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) above += shared.partial[w];
      all += shared.partial[w];
    }
    if (above < target && above + sum >= target) {
#pragma unroll
      for (int j = 0; j < kOwnBins; ++j) {
        if (above < target && above + own[j] >= target) {
          shared.bin = thread * kOwnBins + j;
          shared.above = above;
          shared.own = own[j];
        }
        above += own[j];
      }
    }
    __syncthreads();
    return all;
  }

  // The first i at which the weights of entries 0 .. i together exceed goal, which is less than the sum of all.
  template <class Score, class Weight>
  __device__ int pick(Score score, Weight weight, int count, Mass goal) {
    int begin = 0, end = count;
    while (end - begin > 1) {
      const int part = (end - begin + kWarps - 1) / kWarps;
      const int from = begin + warp * part, to = from + part < end ? from + part : end;
      Mass mine = 0;
      each<4>(score, from + lane, to, 32, [&](int i, float s) { mine += weight(i, s); });
      mine = fold_warp(mine);
      if (lane == 0) shared.partial[warp] = mine;
      __syncthreads();
      int w = 0;
      for (; w + 1 < kWarps && shared.partial[w] <= goal; ++w) goal -= shared.partial[w];
      __syncthreads();
      begin += w * part;
      end = begin + part < end ? begin + part : end;
    }
    return begin;
  }

  Shared& shared;
  const int thread, lane, warp;
};

}  // namespace mimo::cuda
