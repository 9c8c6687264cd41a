// The forward pass of sliding-window attention on CUDA's tensor cores, in bfloat16.
//
// A warp owns 16 rows, a block four warps. Scores [16, 32] of a step are four m16n8 products; their fragments, as
// weights rounded to bfloat16, are the left operand of the second product. Keys lie row by row in shared memory, values
// transposed, so that both right operands are pairs of neighbours; 8 more elements per row keep the banks apart.
#pragma once
#include <cstring>

#include "cuda/mma.h"
#include "cuda/window_attention_rows.cuh"

namespace mimo::cuda {
namespace {

template <int kWidth>
struct TensorSplit {
  static constexpr int kRows = 64, kTile = 64, kStep = 32;
  static constexpr int kKeyStride = kWidth + 8, kValueStride = kTile + 8;
  static constexpr int kSharedBytes = (kTile * kKeyStride + kWidth * kValueStride) * 2;
};

// Rows first .. first + kTile - 1 (zero from `end` on) as [kTile, kWidth], or transposed.
template <int kWidth, bool kTurn, bool kTranspose>
__device__ void stage_bf16(const WindowAttentionParams& p, const PackedHeads& x, const Place& place, int first, int end,
                           __nv_bfloat16* tile) {
  using T = TensorSplit<kWidth>;
  constexpr int kPairs = kWidth / 2;
  const HeadRows<__nv_bfloat16, float> rows(x, place.begin);
  const int half = p.dim / 2;
  for (int i = threadIdx.x; i < T::kTile * kPairs; i += kThreads) {
    const int r = i / kPairs, d = i % kPairs, position = first + r;
    float a = 0, b = 0;
    if (d < half && position < end) {
      a = rows(position, d);
      b = rows(position, d + half);
      if (kTurn) rotate<float>(p, position, d, 1, a, b);
    }
    const int column_a = d < half ? d : 2 * d, column_b = d < half ? d + half : 2 * d + 1;
    narrow(a, tile + (kTranspose ? column_a * T::kValueStride + r : r * T::kKeyStride + column_a));
    narrow(b, tile + (kTranspose ? column_b * T::kValueStride + r : r * T::kKeyStride + column_b));
  }
}

__device__ __forceinline__ uint32_t pair_at(const __nv_bfloat16* p) { return *reinterpret_cast<const uint32_t*>(p); }
__device__ __forceinline__ uint32_t pair_of(float a, float b) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(a, b);
  uint32_t bits;
  std::memcpy(&bits, &pair, sizeof bits);
  return bits;
}

template <int kWidth>
__global__ void __launch_bounds__(kThreads) forward_tensor_kernel(WindowAttentionParams p) {
  using T = TensorSplit<kWidth>;
  MIMO_DYNAMIC_SHARED(__nv_bfloat16, keys);
  __nv_bfloat16* values = keys + T::kTile * T::kKeyStride;
  const Place place = find_place<T::kRows>(p);
  if (place.first >= place.length) return;
  const int lane = int(threadIdx.x) % 32, group = lane / 4, pair = lane % 4 * 2;
  const int warp_row = int(threadIdx.x) / 32 * 16, warp_first = place.first + warp_row;

  stage_bf16<kWidth, true, false>(p, p.q, place, place.first, place.length, keys);
  __syncthreads();
  uint32_t q[kWidth / 16][4];
#pragma unroll
  for (int s = 0; s < kWidth / 16; ++s) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      q[s][i] = pair_at(keys + (warp_row + group + i % 2 * 8) * T::kKeyStride + 16 * s + pair + i / 2 * 8);
    }
  }

  // Of the lane's two rows, warp_first + group and 8 further: what they see, running maximum, the lane's part of the
  // sum.
  int seen_low[2], seen_high[2];
  float maximum[2], sum[2] = {};
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int position = warp_first + group + 8 * h;
    seen_low[h] = position - p.left;
    seen_high[h] = position < place.length ? min(position + p.right + 1, place.length) : 0;
    maximum[h] = -INFINITY;
  }
  float out[kWidth / 8][4] = {};
  const float scale = float(p.scale);
  const int low = max(place.first - p.left, 0), high = min(place.first + T::kRows + p.right, place.length);
  for (int first = low; first < high; first += T::kTile) {
    __syncthreads();
    stage_bf16<kWidth, true, false>(p, p.k, place, first, high, keys);
    stage_bf16<kWidth, false, true>(p, p.v, place, first, high, values);
    __syncthreads();
    for (int j = 0; j < T::kTile; j += T::kStep) {
      if (first + j > warp_first + 15 + p.right || first + j + T::kStep <= warp_first - p.left) continue;
      float score[4][4] = {};
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const __nv_bfloat16* key = keys + (j + 8 * n + group) * T::kKeyStride + pair;
#pragma unroll
        for (int s = 0; s < kWidth / 16; ++s) {
          mma_bf16(score[n], q[s], pair_at(key + 16 * s), pair_at(key + 16 * s + 8));
        }
      }
      float now[2] = {maximum[0], maximum[1]}, base[2];
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int column = first + j + 8 * n + pair + e % 2;
          const bool seen = column >= seen_low[e / 2] && column < seen_high[e / 2];
          score[n][e] = seen ? score[n][e] * scale : -INFINITY;
          now[e / 2] = max(now[e / 2], score[n][e]);
        }
      }
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        now[h] = max(now[h], __shfl_xor_sync(~0u, now[h], 1));
        now[h] = max(now[h], __shfl_xor_sync(~0u, now[h], 2));
        base[h] = now[h] == -INFINITY ? 0.0f : now[h];  // a row that has seen nothing yet
        const float fade = std::exp(maximum[h] - base[h]);
        sum[h] *= fade;
        maximum[h] = now[h];
#pragma unroll
        for (int n = 0; n < kWidth / 8; ++n) {
          out[n][2 * h] *= fade;
          out[n][2 * h + 1] *= fade;
        }
      }
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          score[n][e] = std::exp(score[n][e] - base[e / 2]);
          sum[e / 2] += score[n][e];
        }
      }
#pragma unroll
      for (int s = 0; s < 2; ++s) {
        const float (&left)[4] = score[2 * s], (&right)[4] = score[2 * s + 1];
        const uint32_t weights[4] = {pair_of(left[0], left[1]), pair_of(left[2], left[3]), pair_of(right[0], right[1]),
                                     pair_of(right[2], right[3])};
        const __nv_bfloat16* value = values + group * T::kValueStride + j + 16 * s + pair;
#pragma unroll
        for (int n = 0; n < kWidth / 8; ++n) {
          mma_bf16(out[n], weights, pair_at(value + 8 * n * T::kValueStride),
                   pair_at(value + 8 * n * T::kValueStride + 8));
        }
      }
    }
  }

#pragma unroll
  for (int h = 0; h < 2; ++h) {
    sum[h] += __shfl_xor_sync(~0u, sum[h], 1);
    sum[h] += __shfl_xor_sync(~0u, sum[h], 2);
    const int position = warp_first + group + 8 * h;
    if (position >= place.length) continue;
    auto* row = static_cast<__nv_bfloat16*>(p.out) + (int64_t(place.begin + position) * p.heads + blockIdx.y) * p.dim;
#pragma unroll
    for (int n = 0; n < kWidth / 8; ++n) {
      const uint32_t two = pair_of(out[n][2 * h] / sum[h], out[n][2 * h + 1] / sum[h]);
      if (8 * n < p.dim) *reinterpret_cast<uint32_t*>(row + 8 * n + pair) = two;
    }
    if (pair == 0) row_values<float>(p.lse, p, place)[position] = maximum[h] + std::log(sum[h]);
  }
}

}  // namespace
}  // namespace mimo::cuda
