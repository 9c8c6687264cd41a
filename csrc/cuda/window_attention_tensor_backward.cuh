// The backward pass of sliding-window attention on CUDA's tensor cores, in half precision: grad_q and delta with rows
// as queries, then grad_k and grad_v with rows as keys, as in window_attention_backward.cuh.
//
// A warp owns 16 rows of a group of heads, in shared memory with what belongs to them: queries and the output's
// gradient, or keys and values. It meets the columns that they see 16 at a time: two products give scores and gradients
// of weights, whose fragments, as sums of two halves each, are left operands of the products that add up gradients.
#pragma once
#include "cuda/window_attention_tiles.cuh"

namespace mimo::cuda {
namespace {

template <class S, int kWidth>
struct BackwardTiles : Tiles<S, kWidth> {
  static constexpr int kRows = 64, kTile = 64;
  static constexpr int kSharedBytes = 4 * kTile * BackwardTiles::kRow * 2;
  static constexpr int kBlocks = kWidth > 64 ? 2 : 3;
};

constexpr float kLog2E = 1.44269504f;

// A step's fragments: of rows by 16 columns, two products of 8.
using StepScores = float[2][4];

// score = left right^T, both from tiles.
template <class T>
__device__ __forceinline__ void multiply(typename T::S* left, typename T::S* right, int column, int lane,
                                         StepScores& score) {
#pragma unroll
  for (int s = 0; s < T::kWidth / 16; ++s) {
    uint32_t a[4], b[4];
    left_operand<T>(left, column + 16 * s, lane, a);
    right_operand<T>(right, column + 16 * s, lane, b);
    mma<typename T::S>(score[0], a, b[0], b[1]);
    mma<typename T::S>(score[1], a, b[2], b[3]);
  }
}

// sum += weights right, with weights as sums of two halves.
template <class T>
__device__ __forceinline__ void add_product(const StepScores& weights, typename T::S* right, int column, int lane,
                                            float (&sum)[T::kWidth / 8][4]) {
  using S = typename T::S;
  uint32_t whole[4], rest[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float a = weights[i / 2][i % 2 * 2], b = weights[i / 2][i % 2 * 2 + 1];
    float rounded[2];
    whole[i] = pair_of<S>(a, b);
    widen_pair<S>(whole[i], rounded);
    rest[i] = pair_of<S>(a - rounded[0], b - rounded[1]);
  }
#pragma unroll
  for (int n = 0; n < T::kWidth / 8; n += 2) {
    uint32_t b[4];
    right_operand_transposed<T>(right, column + 8 * n, lane, b);
    mma<S>(sum[n], rest, b[0], b[1]);
    mma<S>(sum[n + 1], rest, b[2], b[3]);
    mma<S>(sum[n], whole, b[0], b[1]);
    mma<S>(sum[n + 1], whole, b[2], b[3]);
  }
}

// Gradients of a warp's rows to memory, contiguous [T, H, D], by way of `tile`, as large as 16 rows of float32.
template <class T, bool kTurnBack>
__device__ __forceinline__ void write_gradients(const WindowAttentionParams& p, const Place& place, int position,
                                                int head, int lane, float factor,
                                                const float (&sum)[T::kHeads][T::kWidth / 8][4], float* tile,
                                                void* to) {
  using S = typename T::S;
  __syncwarp();
#pragma unroll
  for (int h = 0; h < T::kHeads; ++h) {
#pragma unroll
    for (int n = 0; n < T::kWidth / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        *T::at(tile, lane / 4 + e / 2 * 8, h * T::kWidth + 8 * n + lane % 4 * 2 + e % 2) = sum[h][n][e] * factor;
      }
    }
  }
  __syncwarp();
  const int half = p.dim / 2;
#pragma unroll 2
  for (int item = lane; item < 16 * T::kRow / 4; item += 32) {
    const int r = item / (T::kRow / 4), slot = item % (T::kRow / 4);
    const int h = slot / (T::kWidth / 4), d = slot % (T::kWidth / 4) * 2, row = position + r;
    if (d >= half || row >= place.length || head + h >= p.heads) continue;
    float a[2], b[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      a[e] = *T::at(tile, r, h * T::kWidth + d + e);
      b[e] = *T::at(tile, r, h * T::kWidth + half + d + e);
      if (kTurnBack) rotate<float>(p, row, d + e, -1, a[e], b[e]);
    }
    S* out = static_cast<S*>(to) + (int64_t(place.begin + row) * p.heads + head + h) * p.dim + d;
    *reinterpret_cast<uint32_t*>(out) = pair_of<S>(a[0], a[1]);
    *reinterpret_cast<uint32_t*>(out + half) = pair_of<S>(b[0], b[1]);
  }
  __syncwarp();
}

// Columns low .. high - 1 are seen by one of the lane's rows.
struct ColumnsSeen {
  int low[2], high[2];

  __device__ ColumnsSeen(const Place& place, int row, int before, int after) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      low[h] = max(row + 8 * h - before, 0);
      high[h] = row + 8 * h < place.length ? min(row + 8 * h + after + 1, place.length) : 0;
    }
  }
  __device__ bool operator()(int column, int h) const { return column >= low[h] && column < high[h]; }
};

// A warp's part of a block: its rows, and the columns that they see.
template <class T>
struct Own {
  using S = typename T::S;
  int lane, position, group, pair;
  S *first, *second;  // two tiles of 16 rows
  float* sums;        // the same memory

  __device__ Own(const Place& place, S* shared)
      : lane(int(threadIdx.x) % 32),
        position(place.first + int(threadIdx.x) / 32 * 16),
        group(lane / 4),
        pair(lane % 4 * 2),
        first(shared + int(threadIdx.x) / 32 * 32 * T::kRow),
        second(first + 16 * T::kRow),
        sums(reinterpret_cast<float*>(first)) {}

  __device__ bool sees(int column, int count, int before, int after) const {
    return column <= position + 15 + after && column + count > position - before;
  }
};

// Rows are queries: delta and grad_q.
template <class T>
__global__ void __launch_bounds__(kThreads, T::kBlocks)
    backward_queries_tensor_kernel(WindowAttentionBackwardParams b) {
  using S = typename T::S;
  MIMO_DYNAMIC_SHARED(S, shared);
  S *keys = shared + 2 * T::kRows * T::kRow, *values = keys + T::kTile * T::kRow;
  const WindowAttentionParams& p = b.forward;
  const Place place = find_place<T::kRows>(p);
  if (place.first >= place.length) return;
  const Own<T> own(place, shared);
  const int thread = int(threadIdx.x), lane = own.lane, head = int(blockIdx.y) * T::kHeads;
  const ColumnsSeen seen(place, own.position + own.group, p.left, p.right);
  const int low = max(place.first - p.left, 0), high = min(place.first + T::kRows + p.right, place.length);
  const auto rows_of = [&](const PackedHeads& x) { return GroupRows{x, place.begin, head, low, high}; };
  const float factor = float(p.scale) * kLog2E;

  stage_rotated<T, S, 16, 32>(p, rows_of(p.q), own.position, lane, own.first);
  stage_plain<T, S, 16, 32>(p, rows_of(b.grad_out), own.position, lane, own.second);
  stage_plain<T, S, 16, 32>(p, rows_of(b.out), own.position, lane, keys + thread / 32 * 16 * T::kRow);
  cp_async_commit();
  cp_async_wait<0>();
  __syncwarp();
  // delta, by two lanes for a row; and what belongs to the lane's rows of fragments.
  float lse[T::kHeads][2], delta[T::kHeads][2], grad_q[T::kHeads][T::kWidth / 8][4] = {};
#pragma unroll
  for (int h = 0; h < T::kHeads; ++h) {
    const S *grads = own.second, *outs = keys + thread / 32 * 16 * T::kRow;
    float sum = 0;
#pragma unroll 2
    for (int d = 0; d < T::kWidth / 2; d += 2) {
      const int column = h * T::kWidth + lane / 16 * (T::kWidth / 2) + d;
      float x[2], y[2];
      widen_pair<S>(*reinterpret_cast<const uint32_t*>(T::at(grads, lane % 16, column)), x);
      widen_pair<S>(*reinterpret_cast<const uint32_t*>(T::at(outs, lane % 16, column)), y);
      sum += x[0] * y[0] + x[1] * y[1];
    }
    sum += __shfl_xor_sync(~0u, sum, 16);
    const int64_t at = int64_t(head + h) * p.rows + place.begin;
    const int row = own.position + lane % 16;
    if (lane < 16 && row < place.length && head + h < p.heads) static_cast<float*>(b.delta)[at + row] = sum;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int mine = own.position + own.group + 8 * r;
      delta[h][r] = __shfl_sync(~0u, sum, own.group + 8 * r);
      const bool live = mine < place.length && head + h < p.heads;
      lse[h][r] = live ? static_cast<const float*>(p.lse)[at + mine] * kLog2E : 0.0f;
    }
  }
  for (int first = low; first < high; first += T::kTile) {
    __syncthreads();
    stage_plain<T, S, T::kTile, kThreads>(p, rows_of(p.v), first, thread, values);
    cp_async_commit();
    stage_rotated<T, S, T::kTile, kThreads>(p, rows_of(p.k), first, thread, keys);
    cp_async_wait<0>();
    __syncthreads();
#pragma unroll 1
    for (int j = 0; j < T::kTile; j += 16) {
      if (!own.sees(first + j, 16, p.left, p.right)) continue;
      S *k = keys + j * T::kRow, *v = values + j * T::kRow;
#pragma unroll
      for (int h = 0; h < T::kHeads; ++h) {
        StepScores score = {}, grad = {};
        multiply<T>(own.first, k, h * T::kWidth, lane, score);
        multiply<T>(own.second, v, h * T::kWidth, lane, grad);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const int n = i / 4, e = i % 4, r = e / 2;
          const float weight = power_of_two(__fmaf_rn(score[n][e], factor, -lse[h][r]));
          grad[n][e] = seen(first + j + 8 * n + own.pair + e % 2, r) ? weight * (grad[n][e] - delta[h][r]) : 0.0f;
        }
        add_product<T>(grad, k, h * T::kWidth, lane, grad_q[h]);
      }
    }
  }
  write_gradients<T, true>(p, place, own.position, head, lane, float(p.scale), grad_q, own.sums, b.grad_q);
}

// Rows are keys: grad_k and grad_v. Key j is seen by queries j - right .. j + left.
template <class T>
__global__ void __launch_bounds__(kThreads, T::kBlocks) backward_keys_tensor_kernel(WindowAttentionBackwardParams b) {
  using S = typename T::S;
  MIMO_DYNAMIC_SHARED(S, shared);
  __shared__ float lse[T::kHeads][T::kTile], delta[T::kHeads][T::kTile];
  S *queries = shared + 2 * T::kRows * T::kRow, *grads = queries + T::kTile * T::kRow;
  const WindowAttentionParams& p = b.forward;
  const Place place = find_place<T::kRows>(p);
  if (place.first >= place.length) return;
  const Own<T> own(place, shared);
  const int thread = int(threadIdx.x), lane = own.lane, head = int(blockIdx.y) * T::kHeads;
  const ColumnsSeen seen(place, own.position + own.group, p.right, p.left);
  const int low = max(place.first - p.right, 0), high = min(place.first + T::kRows + p.left, place.length);
  const auto rows_of = [&](const PackedHeads& x) { return GroupRows{x, place.begin, head, low, high}; };
  const float factor = float(p.scale) * kLog2E;

  stage_rotated<T, S, 16, 32>(p, rows_of(p.k), own.position, lane, own.first);
  stage_plain<T, S, 16, 32>(p, rows_of(p.v), own.position, lane, own.second);
  float grad_k[T::kHeads][T::kWidth / 8][4] = {}, grad_v[T::kHeads][T::kWidth / 8][4] = {};
  for (int first = low; first < high; first += T::kTile) {
    __syncthreads();
    stage_plain<T, S, T::kTile, kThreads>(p, rows_of(b.grad_out), first, thread, grads);
    cp_async_commit();
    stage_rotated<T, S, T::kTile, kThreads>(p, rows_of(p.q), first, thread, queries);
    for (int i = thread; i < T::kHeads * T::kTile; i += kThreads) {
      const int h = i / T::kTile, j = i % T::kTile;
      const bool there = first + j < high && head + h < p.heads;
      const int64_t at = int64_t(head + h) * p.rows + place.begin + first + j;
      lse[h][j] = there ? static_cast<const float*>(p.lse)[at] * kLog2E : 0.0f;
      delta[h][j] = there ? static_cast<const float*>(b.delta)[at] : 0.0f;
    }
    cp_async_wait<0>();
    __syncthreads();
#pragma unroll 1
    for (int j = 0; j < T::kTile; j += 16) {
      if (!own.sees(first + j, 16, p.right, p.left)) continue;
      S *q = queries + j * T::kRow, *g = grads + j * T::kRow;
#pragma unroll
      for (int h = 0; h < T::kHeads; ++h) {
        StepScores score = {}, grad = {};
        multiply<T>(own.first, q, h * T::kWidth, lane, score);
        multiply<T>(own.second, g, h * T::kWidth, lane, grad);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const int n = i / 4, e = i % 4, column = j + 8 * n + own.pair + e % 2;
          const float weight = power_of_two(__fmaf_rn(score[n][e], factor, -lse[h][column]));
          score[n][e] = seen(first + column, e / 2) ? weight : 0.0f;
          grad[n][e] = seen(first + column, e / 2) ? weight * (grad[n][e] - delta[h][column]) : 0.0f;
        }
        add_product<T>(score, g, h * T::kWidth, lane, grad_v[h]);
        add_product<T>(grad, q, h * T::kWidth, lane, grad_k[h]);
      }
    }
  }
  write_gradients<T, true>(p, place, own.position, head, lane, float(p.scale), grad_k, own.sums, b.grad_k);
  write_gradients<T, false>(p, place, own.position, head, lane, 1.0f, grad_v, own.sums, b.grad_v);
}

}  // namespace
}  // namespace mimo::cuda
