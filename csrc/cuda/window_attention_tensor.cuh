// The forward pass of sliding-window attention on CUDA's tensor cores, in half precision.
//
// A block owns 64 rows of several heads, a warp 16 of them. Scores are products of 16 rows by 8 columns; their
// fragments, as weights rounded to the elements' type, are the left operand of the second product. Where 16 rows see no
// more than kColumns columns between them (kWhole), a row's scores all lie in registers, so there is one maximum and
// nothing to rescale, and what a row does not see enters as the first summand of its scores, minus infinity, which is
// the same for all heads. Wider windows walk over tiles of kColumns columns with a running maximum.
#pragma once
#include "cuda/window_attention_tiles.cuh"

namespace mimo::cuda {
namespace {

template <class S, int kWidth, int kColumns_, bool kWhole_>
struct TensorSplit : Tiles<S, kWidth> {
  static constexpr bool kWhole = kWhole_;
  static constexpr int kRows = 64, kColumns = kColumns_;
  static constexpr int kSteps = (kColumns + 15) / 16;                   // of 16 columns
  static constexpr int kTile = kWhole ? kRows - 16 + 16 * kSteps : 64;  // rows of keys and values in shared memory
  static constexpr int kSharedBytes = (kRows + 2 * kTile) * TensorSplit::kRow * 2;
  static constexpr int kBlocks = kWhole && kWidth == 16 ? 4 : kWidth > 64 ? 2 : 3;  // per multiprocessor
};

// What a lane knows of its two rows, `group` and `group + 8` of the warp's.
template <int kWidth>
struct RowState {
  float maximum[2], sum[2], out[kWidth / 8][4];  // maximum of the unscaled scores; the lane's part of the sum

  __device__ void clear() {
#pragma unroll
    for (int h = 0; h < 2; ++h) maximum[h] = -INFINITY, sum[h] = 0;
#pragma unroll
    for (int n = 0; n < kWidth / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) out[n][e] = 0;
    }
  }
};

// Columns low .. high - 1, counted from a step's first, are seen by one of the lane's rows.
struct Seen {
  int low[2], high[2];

  __device__ Seen(const WindowAttentionParams& p, const Place& place, int row, int first) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      low[h] = max(row + 8 * h - p.left, 0) - first;
      high[h] = min(row + 8 * h + p.right + 1, place.length) - first;
    }
  }
  __device__ float operator()(int column, int h) const {
    return column >= low[h] && column < high[h] ? 0.0f : -INFINITY;
  }
};

template <class T>
using Scores = float[T::kColumns / 8][4];

// score += q k for kColumns columns, from a warp's rows of the tile of queries. The soft-max looks for the greatest
// score: a negative scale turns the queries' sign, and a scale of zero makes all scores zero.
template <class T>
__device__ __forceinline__ void add_scores(typename T::S* queries, typename T::S* keys, int column, float scale,
                                           int lane, Scores<T>& score) {
  uint32_t q[T::kWidth / 16][4];
#pragma unroll
  for (int s = 0; s < T::kWidth / 16; ++s) {
    left_operand<T>(queries, column + 16 * s, lane, q[s]);
    if (scale <= 0) {
#pragma unroll
      for (int i = 0; i < 4; ++i) q[s][i] = scale < 0 ? q[s][i] ^ 0x80008000u : 0;
    }
  }
#pragma unroll
  for (int t = 0; t < T::kSteps; ++t) {
#pragma unroll
    for (int s = 0; s < T::kWidth / 16; ++s) {
      uint32_t k[4];
      right_operand<T>(keys + t * 16 * T::kRow, column + 16 * s, lane, k);
      mma<typename T::S>(score[2 * t], q[s], k[0], k[1]);
      if (2 * t + 1 < T::kColumns / 8) mma<typename T::S>(score[2 * t + 1], q[s], k[2], k[3]);
    }
  }
}

// Takes the scores into the soft-max; `factor` is the size of their scale times log2(e).
template <class T>
__device__ __forceinline__ void take(Scores<T>& score, float factor, typename T::S* values, int column, int lane,
                                     RowState<T::kWidth>& state) {
  float base[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float now = state.maximum[h];
#pragma unroll
    for (int n = 0; n < T::kColumns / 8; ++n) now = max(now, max(score[n][2 * h], score[n][2 * h + 1]));
    now = max(now, __shfl_xor_sync(~0u, now, 1));
    now = max(now, __shfl_xor_sync(~0u, now, 2));
    base[h] = now * factor;
    if constexpr (!T::kWhole) {
      if (now == -INFINITY) base[h] = 0;  // a row that has seen nothing yet
      const float fade = power_of_two(state.maximum[h] * factor - base[h]);
      state.sum[h] *= fade;
#pragma unroll
      for (int n = 0; n < T::kWidth / 8; ++n) {
        state.out[n][2 * h] *= fade;
        state.out[n][2 * h + 1] *= fade;
      }
    }
    state.maximum[h] = now;
  }
#pragma unroll
  for (int t = 0; t < T::kSteps; ++t) {
    uint32_t weights[4] = {};
#pragma unroll
    for (int n = 2 * t; n < min(2 * t + 2, T::kColumns / 8); ++n) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float a = power_of_two(__fmaf_rn(score[n][2 * h], factor, -base[h]));
        const float b = power_of_two(__fmaf_rn(score[n][2 * h + 1], factor, -base[h]));
        state.sum[h] += a + b;
        weights[n % 2 * 2 + h] = pair_of<typename T::S>(a, b);
      }
    }
#pragma unroll
    for (int n = 0; n < T::kWidth / 8; n += 2) {
      uint32_t v[4];
      right_operand_transposed<T>(values + t * 16 * T::kRow, column + 8 * n, lane, v);
      mma<typename T::S>(state.out[n], weights, v[0], v[1]);
      mma<typename T::S>(state.out[n + 1], weights, v[2], v[3]);
    }
  }
}

// Results of a head: the output to the warp's rows of a tile, the logarithm of the sum to memory.
template <class T>
__device__ __forceinline__ void finish(const WindowAttentionParams& p, const Place& place, int head, int position,
                                       float size, typename T::S* tile, int column, int lane,
                                       RowState<T::kWidth>& state) {
  const int group = lane / 4, pair = lane % 4 * 2;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    state.sum[h] += __shfl_xor_sync(~0u, state.sum[h], 1);
    state.sum[h] += __shfl_xor_sync(~0u, state.sum[h], 2);
    const float inverse = __fdividef(1.0f, state.sum[h]);
#pragma unroll
    for (int n = 0; n < T::kWidth / 8; ++n) {
      *reinterpret_cast<uint32_t*>(T::at(tile, group + 8 * h, column + 8 * n + pair)) =
          pair_of<typename T::S>(state.out[n][2 * h] * inverse, state.out[n][2 * h + 1] * inverse);
    }
  }
  if (pair < 4) {  // the first lane of a group of four writes for one row, the second for the other
    const int row = position + group + 4 * pair;
    const float maximum = pair ? state.maximum[1] : state.maximum[0], sum = pair ? state.sum[1] : state.sum[0];
    if (row < place.length) {
      static_cast<float*>(p.lse)[int64_t(head) * p.rows + place.begin + row] = maximum * size + __logf(sum);
    }
  }
}

// `heads` of a block, a multiple of kHeads.
template <class T>
__global__ void __launch_bounds__(kThreads, T::kBlocks) forward_tensor_kernel(WindowAttentionParams p, int heads) {
  using S = typename T::S;
  MIMO_DYNAMIC_SHARED(S, queries);
  S *keys = queries + T::kRows * T::kRow, *values = keys + T::kTile * T::kRow;
  const Place place = find_place<T::kRows>(p);
  if (place.first >= place.length) return;
  const int thread = int(threadIdx.x), lane = thread % 32, warp_row = thread / 32 * 16;
  const int position = place.first + warp_row, row = position + lane / 4;
  S* own = queries + warp_row * T::kRow;
  const float scale = float(p.scale), size = fabsf(scale), factor = scale == 0 ? 1.0f : size * 1.44269504f;

  const int low = T::kWhole ? place.first - p.left : max(place.first - p.left, 0);
  const int high = min(place.first + T::kRows + p.right, place.length);
  float hidden[T::kWhole ? T::kColumns / 8 : 1][4];
  if constexpr (T::kWhole) {
    const Seen seen(p, place, row, position - p.left);
#pragma unroll
    for (int n = 0; n < T::kColumns / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) hidden[n][e] = seen(8 * n + lane % 4 * 2 + e % 2, e / 2);
    }
  }

  const int last = min(int(blockIdx.y + 1) * heads, p.heads);
#pragma unroll 1
  for (int head = int(blockIdx.y) * heads; head < last; head += T::kHeads) {
    const auto rows_of = [&](const PackedHeads& x) { return GroupRows{x, place.begin, head, max(low, 0), high}; };
    RowState<T::kWidth> state[T::kWhole ? 1 : T::kHeads];
    if constexpr (!T::kWhole) {
#pragma unroll
      for (int h = 0; h < T::kHeads; ++h) state[h].clear();
    }
    __syncwarp();
    stage_rotated<T, S, 16, 32>(p, rows_of(p.q), position, lane, own);
#pragma unroll 1
    for (int first = low; first < high; first += T::kTile) {
      __syncthreads();
      stage_plain<T, S, T::kTile, kThreads>(p, rows_of(p.v), first, thread, values);
      cp_async_commit();
      stage_rotated<T, S, T::kTile, kThreads>(p, rows_of(p.k), first, thread, keys);
      cp_async_wait<0>();
      __syncthreads();
      if constexpr (T::kWhole) {
#pragma unroll 1
        for (int h = 0; h < min(T::kHeads, p.heads - head); ++h) {
          Scores<T> score;
#pragma unroll
          for (int n = 0; n < T::kColumns / 8; ++n) {
#pragma unroll
            for (int e = 0; e < 4; ++e) score[n][e] = hidden[n][e];
          }
          state[0].clear();
          const int column = h * T::kWidth;
          add_scores<T>(own, keys + warp_row * T::kRow, column, scale, lane, score);
          take<T>(score, factor, values + warp_row * T::kRow, column, lane, state[0]);
          __syncwarp();
          finish<T>(p, place, head + h, position, size, own, column, lane, state[0]);
        }
      } else {
        if (first > position + 15 + p.right || first + T::kTile <= position - p.left) continue;
        // Whether every row of the warp sees every column of the tile.
        const bool inside = first >= position + 15 - p.left && first + T::kTile <= min(position + p.right + 1, high);
        const Seen seen(p, place, row, first);
#pragma unroll
        for (int h = 0; h < T::kHeads; ++h) {
          if (head + h >= p.heads) break;
          Scores<T> score = {};
          add_scores<T>(own, keys, h * T::kWidth, scale, lane, score);
          if (!inside) {
#pragma unroll
            for (int n = 0; n < T::kColumns / 8; ++n) {
#pragma unroll
              for (int e = 0; e < 4; ++e) score[n][e] += seen(8 * n + lane % 4 * 2 + e % 2, e / 2);
            }
          }
          take<T>(score, factor, values, h * T::kWidth, lane, state[h]);
        }
      }
    }
    if constexpr (!T::kWhole) {
      __syncwarp();
#pragma unroll
      for (int h = 0; h < T::kHeads; ++h) {
        if (head + h >= p.heads) break;
        finish<T>(p, place, head + h, position, size, own, h * T::kWidth, lane, state[h]);
      }
    }
    __syncwarp();
    write_tile<T>(p, place, position, head, lane, own, p.out);
  }
}

}  // namespace
}  // namespace mimo::cuda
