// The backward pass of sliding-window attention on CUDA: grad_q and delta with rows as queries, then grad_k and grad_v
// with rows as keys; each recomputes the scores, so there are no atomics and results do not vary between runs.
#pragma once
#include "cuda/window_attention_rows.cuh"

namespace mimo::cuda {
namespace {

// Rows are queries: delta and grad_q.
template <class Split>
__global__ void __launch_bounds__(kThreads) backward_queries_kernel(WindowAttentionBackwardParams b) {
  using C = typename Split::Value;
  MIMO_DYNAMIC_SHARED(C, tile);
  C* values = tile + Split::kTile * Split::kWidth;
  const WindowAttentionParams& p = b.forward;
  const Place place = find_place<Split::kRows>(p);
  if (place.first >= place.length) return;
  const Row<Split> row(place, p.left, p.right);
  Slice<Split> q, grad, grad_q, other;
  own_rows<Split, false>(p, b.out, place, row, 1, tile, other);
  own_rows<Split, false>(p, b.grad_out, place, row, 1, tile, grad);
  own_rows<Split, true>(p, p.q, place, row, C(p.scale), tile, q);
  grad_q.fill(0);
  const C delta = grad.dot(other), lse = row.live ? row_values<C>(p.lse, p, place)[row.position] : C(0);
  if (row.live && row.lane == 0) row_values<C>(b.delta, p, place)[row.position] = delta;
  int low, high;
  seen_columns<Split>(place, p.left, p.right, low, high);
  for (int first = low; first < high; first += Split::kTile) {
    __syncthreads();
    stage<Split, true>(p, p.k, place, first, high, 1, tile);
    stage<Split, false>(p, p.v, place, first, high, 1, values);
    __syncthreads();
    for (int j = 0; j < Split::kTile; ++j) {
      if (!row.warp_sees(first + j, 1)) continue;
      other.load(values + j * Split::kWidth, row.lane);
      const C grad_weight = grad.dot(other);
      other.load(tile + j * Split::kWidth, row.lane);
      const C score = q.dot(other), weight = row.sees(first + j) ? std::exp(score - lse) : C(0);
      grad_q.add(weight * (grad_weight - delta), other);
    }
  }
  grad_q.scale(C(p.scale));
  write_rows<Split, true>(p, place, row, grad_q, tile, b.grad_q);
}

// Rows are keys: grad_k and grad_v. Key j is seen by queries j - right .. j + left.
template <class Split>
__global__ void __launch_bounds__(kThreads) backward_keys_kernel(WindowAttentionBackwardParams b) {
  using C = typename Split::Value;
  MIMO_DYNAMIC_SHARED(C, tile);
  C *grads = tile + Split::kTile * Split::kWidth, *lse = tile + Split::kTileElements, *delta = lse + Split::kTile;
  const WindowAttentionParams& p = b.forward;
  const Place place = find_place<Split::kRows>(p);
  if (place.first >= place.length) return;
  const Row<Split> row(place, p.right, p.left);
  Slice<Split> k, v, grad_k, grad_v, other;
  own_rows<Split, true>(p, p.k, place, row, 1, tile, k);
  own_rows<Split, false>(p, p.v, place, row, 1, tile, v);
  grad_k.fill(0);
  grad_v.fill(0);
  int low, high;
  seen_columns<Split>(place, p.right, p.left, low, high);
  for (int first = low; first < high; first += Split::kTile) {
    __syncthreads();
    stage<Split, true>(p, p.q, place, first, high, C(p.scale), tile);
    stage<Split, false>(p, b.grad_out, place, first, high, 1, grads);
    for (int j = threadIdx.x; j < Split::kTile && first + j < high; j += kThreads) {
      lse[j] = row_values<C>(p.lse, p, place)[first + j];
      delta[j] = row_values<C>(b.delta, p, place)[first + j];
    }
    __syncthreads();
    for (int j = 0; j < Split::kTile; ++j) {
      if (!row.warp_sees(first + j, 1)) continue;
      other.load(grads + j * Split::kWidth, row.lane);
      const C grad_weight = v.dot(other);
      Slice<Split> query;
      query.load(tile + j * Split::kWidth, row.lane);
      const C score = k.dot(query), weight = row.sees(first + j) ? std::exp(score - lse[j]) : C(0);
      grad_v.add(weight, other);
      grad_k.add(weight * (grad_weight - delta[j]), query);
    }
  }
  write_rows<Split, true>(p, place, row, grad_k, tile, b.grad_k);
  write_rows<Split, false>(p, place, row, grad_v, tile, b.grad_v);
}

}  // namespace
}  // namespace mimo::cuda
