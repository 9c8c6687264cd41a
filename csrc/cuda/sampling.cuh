// One row of logits -> one token by one block, without sorting (reference/sampling.py; cpu/sampling.h is its CPU twin).
//
// Weights are e^(score - largest) in fixed point, 2^-39 of the largest: integer sums come out the same in any order, so
// that blocks may reduce and gather as they like and a draw depends on its row alone. Every pass over the row divides
// by the temperature again, which costs less than storing the scores.
//
//   extremes   largest and least finite score
//   select     where top-k, then top-p, cut: the weights above each of kThresholds scores, again within the interval
//              between two of them that holds the answer, and so on until it holds equal scores only; as soon as few
//              enough entries are left they are gathered in shared memory
//   pick       the first entry at which the sum in index order exceeds a goal: every warp adds up a part, then the part
//              that holds the goal is split again
#pragma once
#include "cuda/bad_data.cuh"
#include "cuda/warp.cuh"
#include "mimo/philox.h"
#include "mimo/sampling.h"

namespace mimo::cuda {

using Mass = unsigned long long;
inline constexpr float kOneMass = 0x1p39f;  // times kMaxVocabulary still below 2^64
inline constexpr float kLowestScore = -3.402823466e38f, kNone = -__builtin_inff();
inline constexpr int kThresholds = 8, kCandidates = 2048;
// What RowSampler::sample returns for a row that cannot be sampled: -1 - part (mimo/bad_data.h).
inline constexpr int kNoToken = -1;

// The token to write for row `row`: 0 where sample() gave none, which is reported.
__device__ __forceinline__ int drawn(int token, int64_t row, const BadDataReport& report) {
  if (token >= 0) return token;
  report(row, uint8_t(kNoToken - token));
  return 0;
}

template <int kThreads>
class RowSampler {
  static constexpr int kWarps = kThreads / 32;
  static constexpr unsigned kAll = ~0u;

 public:
  struct Shared {
    float candidates[kCandidates];
    Mass partial[kWarps][kThresholds], sums[kThresholds];
    float least[kWarps], most[kWarps], maxima[kThreads];
    int gathered;
  };

  __device__ explicit RowSampler(Shared& memory)
      : shared(memory), thread(int(threadIdx.x)), lane(thread % 32), warp(thread / 32) {}

  // The token that `uniform` in [0, 1) draws from logit(0) .. logit(count - 1); the same for every thread. Below 0
  // where a logit is NaN, the largest score is not finite, or a setting is not one.
  template <class Logit>
  __device__ int sample(Logit logit, int count, float temperature, int top_k, float top_p, double uniform) {
    if (!(temperature >= 0 && temperature <= -kLowestScore)) return kNoToken - kBadTemperature;
    if (top_p != top_p) return kNoToken - kBadTopP;
    const float divisor = temperature == 0 ? 1.0f : temperature;
    const auto score = [=](int i) { return logit(i) / divisor; };
    float least, largest;
    if (!extremes(score, count, least, largest)) return kNoToken - kBadLogits;
    if (temperature == 0) return pick(score, [=](int, float s) { return Mass(s == largest); }, count, 0);

    float cut = kLowestScore;  // entries below it are removed
    if (top_k > 0 && top_k < count) {
      const auto one = [](float) { return Mass(1); };
      if (top_k <= kThreads) {  // the top_k-th largest of the threads' maxima is not above that of all entries
        const auto maximum = [this](int i) { return shared.maxima[i]; };
        const Cut bound = select(maximum, one, kThreads, Mass(top_k), least, largest);
        if (bound.above + bound.equal >= Mass(top_k)) least = bound.score;
      }
      cut = select(score, one, count, Mass(top_k), least, largest).score;
    }
    const auto mass = [=](float s) { return s >= cut ? Mass(rintf(expf(s - largest) * kOneMass)) : Mass(0); };
    Mass total = sum(score, mass, count);
    if (!(top_p > 0 && top_p < 1)) {
      return pick(score, [=](int, float s) { return mass(s); }, count, goal_of(uniform, total));
    }

    const Mass target = Mass(ceil(double(top_p) * double(total)));
    // What weighs less than (1 - top_p) * total / count is not needed to reach the target.
    const float fall = logf((1 - top_p) * (float(total) / kOneMass) / float(count));
    const float low = fmaxf(cut, largest + fall - 1e-3f - 1e-6f * fabsf(largest));
    const Cut nucleus = select(score, mass, count, target, low, largest);
    const Mass weight = mass(nucleus.score);
    int first = 0;  // of the entries equal to nucleus.score, the first that stays
    if (nucleus.equal > 1) {
      Mass needed = target > nucleus.above ? (target - nucleus.above + weight - 1) / weight : 1;
      needed = needed < 1 ? 1 : needed;
      if (needed < nucleus.equal) {
        first = pick(score, [=](int, float s) { return Mass(s == nucleus.score); }, count, nucleus.equal - needed);
        total = nucleus.above + needed * weight;
      }
    }
    const auto kept = [=](int i, float s) {
      return s > nucleus.score || (s == nucleus.score && i >= first) ? mass(s) : Mass(0);
    };
    if (first == 0) total = nucleus.above + nucleus.equal * weight;
    return pick(score, kept, count, goal_of(uniform, total));
  }

 private:
  struct Cut {
    float score;  // the largest one such that the entries at or above it reach the target
    Mass above;   // of the entries above it
    Mass equal;   // how many entries have it
  };

  static __device__ Mass goal_of(double uniform, Mass total) {
    const Mass goal = Mass(uniform * double(total));
    return goal < total ? goal : total - 1;
  }

  // body(i, score(i)) for i = first, first + stride, .. below end. The scores are read several at a time: their way
  // from the L2 cache is long, and a block has few warps to hide it behind.
  template <class Score, class Body>
  static __device__ __forceinline__ void each(Score score, int first, int end, int stride, Body body) {
    constexpr int kAhead = 8;
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

  // x[j] of all threads added up, in every thread.
  template <int kCount>
  __device__ void add_up(Mass (&x)[kCount]) {
    for (int j = 0; j < kCount; ++j) {
      x[j] = fold_warp(x[j]);
      if (lane == 0) shared.partial[warp][j] = x[j];
    }
    __syncthreads();
    for (int j = warp; j < kCount; j += kWarps) {
      const Mass total = fold_warp(lane < kWarps ? shared.partial[lane][j] : Mass(0));
      if (lane == 0) shared.sums[j] = total;
    }
    __syncthreads();
    for (int j = 0; j < kCount; ++j) x[j] = shared.sums[j];
  }

  __device__ void spread(float& least, float& most) {
    for (int width = 16; width; width /= 2) {
      least = fminf(least, __shfl_xor_sync(kAll, least, width));
      most = fmaxf(most, __shfl_xor_sync(kAll, most, width));
    }
    if (lane == 0) shared.least[warp] = least, shared.most[warp] = most;
    __syncthreads();
    for (int w = 0; w < kWarps; ++w) {
      least = fminf(least, shared.least[w]);
      most = fmaxf(most, shared.most[w]);
    }
    __syncthreads();
  }

  // False where a score is NaN or the largest is not finite.
  template <class Score>
  __device__ bool extremes(Score score, int count, float& least, float& largest) {
    least = -kLowestScore, largest = kLowestScore;
    bool any = false, valid = true;
    each(score, thread, count, kThreads, [&](int, float s) {
      valid = valid && s <= -kLowestScore;  // neither NaN nor +inf
      if (s < kLowestScore) return;
      any = true;
      least = fminf(least, s);
      largest = fmaxf(largest, s);
    });
    Mass of[2] = {Mass(any), Mass(!valid)};
    add_up(of);
    if (of[0] == 0 || of[1] > 0) return false;
    shared.maxima[thread] = any ? largest : kNone;
    spread(least, largest);
    return true;
  }

  template <class Score, class Weight>
  __device__ Mass sum(Score score, Weight weight, int count) {
    Mass total[1] = {};
    each(score, thread, count, kThreads, [&](int, float s) { total[0] += weight(s); });
    add_up(total);
    return total[0];
  }

  // Cuts at `target`: no entry is above `high`, those below `low` are not needed to reach it.
  template <class Score, class Weight>
  __device__ Cut select(Score score, Weight weight, int count, Mass target, float low, float high) {
    Mass above = 0;
    bool in_shared = false;
    const auto at = [&](int i) { return in_shared ? shared.candidates[i] : score(i); };
    for (;;) {
      float thresholds[kThresholds];  // the last one is `high`: each pass parts the largest entries from others
      for (int j = 0; j < kThresholds; ++j) {
        const float part = float(j + 1) / kThresholds;
        thresholds[j] = j + 1 < kThresholds ? fminf(fmaxf(low * (1 - part) + high * part, low), high) : high;
      }
      Mass mass[kThresholds] = {};
      each(at, thread, count, kThreads, [&](int, float s) {
        if (!(s >= low && s <= high)) return;
        const Mass w = weight(s);
        for (int j = 0; j < kThresholds; ++j) mass[j] += s >= thresholds[j] ? w : 0;
      });
      add_up(mass);
      float bottom = low, top = -kLowestScore;
      bool open = true;  // nothing above the interval
      for (int j = 0; j < kThresholds; ++j) {
        if (above + mass[j] >= target) {
          bottom = thresholds[j];
        } else {
          top = thresholds[j];
          open = false;
          above += mass[j];
          break;
        }
      }

      if (thread == 0) shared.gathered = 0;
      __syncthreads();
      float least = -kLowestScore, most = kLowestScore;
      Mass kept[1] = {};
      each(at, thread, count, kThreads, [&](int, float s) {
        if (!(s >= bottom && s <= high) || (!open && s >= top) || weight(s) == 0) return;
        ++kept[0];
        least = fminf(least, s);
        most = fmaxf(most, s);
        if (in_shared) return;
        const int place = atomicAdd(&shared.gathered, 1);
        if (place < kCandidates) shared.candidates[place] = s;
      });
      add_up(kept);
      if (kept[0] == 0) return {bottom, above, 0};  // rounding: all together do not quite reach the target
      spread(least, most);
      if (least == most) return {least, above, kept[0]};
      low = least;
      high = most;
      if (!in_shared && kept[0] <= kCandidates) {
        in_shared = true;
        count = int(kept[0]);
      }
    }
  }

  // The first i at which the weights of entries 0 .. i together exceed goal, which is less than the sum of all.
  template <class Score, class Weight>
  __device__ int pick(Score score, Weight weight, int count, Mass goal) {
    int begin = 0, end = count;
    while (end - begin > 1) {
      const int part = (end - begin + kWarps - 1) / kWarps;
      const int from = begin + warp * part, to = from + part < end ? from + part : end;
      Mass mine = 0;
      each(score, from + lane, to, 32, [&](int i, float s) { mine += weight(i, s); });
      mine = fold_warp(mine);
      if (lane == 0) shared.partial[warp][0] = mine;
      __syncthreads();
      int w = 0;
      for (; w + 1 < kWarps && shared.partial[w][0] <= goal; ++w) goal -= shared.partial[w][0];
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
