// The forward pass of sliding-window attention on CUDA: online soft-max, one rescaling per chunk.
#pragma once
#include "cuda/window_attention_rows.cuh"

namespace mimo::cuda {
namespace {

template <class Split>
__global__ void __launch_bounds__(kThreads) forward_kernel(WindowAttentionParams p) {
  using C = typename Split::Value;
  MIMO_DYNAMIC_SHARED(C, tile);
  C* values = tile + Split::kTile * Split::kWidth;
  const Place place = find_place<Split::kRows>(p);
  if (place.first >= place.length) return;
  const Row<Split> row(place, p.left, p.right);
  Slice<Split> q, out, other;
  own_rows<Split, true>(p, p.q, place, row, C(p.scale), tile, q);
  out.fill(0);
  const C hidden = -C(INFINITY);
  C maximum = hidden, sum = 0;
  int low, high;
  seen_columns<Split>(place, p.left, p.right, low, high);
  for (int first = low; first < high; first += Split::kTile) {
    __syncthreads();
    stage<Split, true>(p, p.k, place, first, high, 1, tile);
    stage<Split, false>(p, p.v, place, first, high, 1, values);
    __syncthreads();
    for (int j = 0; j < Split::kTile; j += kChunk) {
      if (!row.warp_sees(first + j, kChunk)) continue;
      C score[kChunk], now = maximum;
#pragma unroll
      for (int i = 0; i < kChunk; ++i) {
        other.load(tile + (j + i) * Split::kWidth, row.lane);
        score[i] = q.dot(other);
        if (!row.sees(first + j + i)) score[i] = hidden;
        now = max(now, score[i]);
      }
      const C base = now == hidden ? C(0) : now;  // a row that has seen nothing yet
      const C fade = std::exp(maximum - base);
      out.scale(fade);
      sum *= fade;
      maximum = now;
#pragma unroll
      for (int i = 0; i < kChunk; ++i) {
        const C weight = std::exp(score[i] - base);
        sum += weight;
        other.load(values + (j + i) * Split::kWidth, row.lane);
        out.add(weight, other);
      }
    }
  }
  out.scale(C(1) / sum);
  write_rows<Split, false>(p, place, row, out, tile, p.out);
  if (row.live && row.lane == 0) row_values<C>(p.lse, p, place)[row.position] = maximum + std::log(sum);
}

}  // namespace
}  // namespace mimo::cuda
