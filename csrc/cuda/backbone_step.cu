// backbone_step on CUDA: the blocks' kernels (decode_step.cuh) around an attention for a cache that may be long, and
// the final norm. The host decides nothing in between and looks at nothing, so the call can be captured in a graph.
//
// Attention is two kernels, so that one row with a long cache has work for many multiprocessors:
//   pieces    a warp per row, query head and piece of kAttentionSplit positions; the heads that share a key head are
//             neighbours in the grid and find its keys and values in the caches
//   combine   a warp per row and query head adds its pieces up, in order
// Pieces count from a row's own first position: no result depends on the batch or its padding.
#include "cuda/decode_step.cuh"
#include "mimo/backbone_step.h"

namespace mimo::cuda {
namespace {

constexpr int kBatchTile = 4;  // rows of x per pass over a weight

struct Pieces {
  float *maximum, *total;  // [batch, heads, most]
  float* out;              // [batch, heads, most, W]
  int most;                // of a row
};

__device__ __forceinline__ int64_t warp_of_grid() { return int64_t(blockIdx.x) * kDecodeWarps + threadIdx.y; }

// Four blocks per multiprocessor leave 64 registers; without a wish the compiler takes 48, and some go to memory.
template <class C>
__global__ void __launch_bounds__(32 * kDecodeWarps, 4) pieces_kernel(DecodeState s, Pieces pieces, int layer) {
  const BlockShape& shape = s.shape;
  const int shared = shape.heads / shape.kv_heads, width = shape.head_dim;
  const int64_t at = warp_of_grid(), item = at / shared, row = item / pieces.most;
  if (row >= int64_t(s.batch) * shape.kv_heads) return;
  const int piece = int(item % pieces.most), b = int(row / shape.kv_heads), kv_head = int(row % shape.kv_heads);
  const int from = s.first(b) + piece * kAttentionSplit;
  if (from > s.position) return;
  const int64_t head = int64_t(b) * shape.heads + kv_head * shared + at % shared, to = head * pieces.most + piece;
  const Attended sum =
      attend_warp(s.q + head * width, s.cached<C>(layer, false, b, kv_head, from),
                  s.cached<C>(layer, true, b, kv_head, from), min(kAttentionSplit, s.position + 1 - from), width);
  for_columns(width, [&](int j, int d) { pieces.out[to * width + d] = sum.out[j]; });
  if (threadIdx.x != 0) return;
  pieces.maximum[to] = sum.maximum;
  pieces.total[to] = sum.total;
}

__global__ void __launch_bounds__(32 * kDecodeWarps) combine_kernel(DecodeState s, Pieces pieces) {
  const BlockShape& shape = s.shape;
  const int64_t head = warp_of_grid(), first = head * pieces.most;
  if (head >= int64_t(s.batch) * shape.heads) return;
  const int width = shape.head_dim;
  const int count = (s.position - s.first(int(head / shape.heads))) / kAttentionSplit + 1;
  Attended sum;
  for (int i = 0; i < count; ++i) sum.maximum = max(sum.maximum, pieces.maximum[first + i]);
  for (int i = 0; i < count; ++i) {
    const float share = std::exp(pieces.maximum[first + i] - sum.maximum);
    sum.total = __fmaf_rn(share, pieces.total[first + i], sum.total);
    for_columns(width,
                [&](int j, int d) { sum.out[j] = __fmaf_rn(share, pieces.out[(first + i) * width + d], sum.out[j]); });
  }
  for_columns(width, [&](int j, int d) { s.attended[head * width + d] = sum.out[j] / sum.total; });
}

struct Plan {
  DecodeState state{};
  Pieces pieces{};
  int64_t bytes;

  explicit Plan(const BackboneStepParams& p) {
    Buffers buffers{static_cast<char*>(p.workspace)};
    const BlockShape& shape = p.shape;
    const int64_t batch = p.batch, heads = batch * shape.heads;
    state.shape = shape;
    state.batch = p.batch;
    state.capacity = p.capacity;
    state.position = p.length;
    state.cache = p.cache;
    state.cos = p.cos;
    state.sin = p.sin;
    state.padding = p.padding;
    state.x = buffers.take<float>(batch * shape.dim);
    state.q = buffers.take<float>(heads * shape.head_dim);
    state.attended = buffers.take<float>(heads * shape.head_dim);
    state.act = buffers.take<float>(batch * shape.ffn);
    pieces.most = p.length / kAttentionSplit + 1;
    pieces.maximum = buffers.take<float>(heads * pieces.most);
    pieces.total = buffers.take<float>(heads * pieces.most);
    pieces.out = buffers.take<float>(heads * pieces.most * shape.head_dim);
    bytes = buffers.used;
  }
};

template <int kBatch, class W>
LaunchError step(const BackboneStepParams& p, cudaStream_t stream) {
  const Plan plan(p);
  const DecodeState& state = plan.state;
  const int64_t heads = int64_t(p.batch) * p.shape.heads;
  launch_widen<W>(p.hidden, state.x, int64_t(p.batch) * p.shape.dim, stream);
  for (int layer = 0; layer < p.layers; ++layer) {
    const auto attend = [&] {
      MIMO_LAUNCH(decode_blocks(heads * plan.pieces.most), decode_block(), 0, stream, pieces_kernel<W>)
      (state, plan.pieces, layer);
      MIMO_LAUNCH(decode_blocks(heads), decode_block(), 0, stream, combine_kernel)(state, plan.pieces);
    };
    if (const LaunchError error = launch_decode_block<kBatch, W, W>(state, p.blocks[layer], layer, stream, attend)) {
      return error;
    }
  }
  MIMO_LAUNCH(decode_blocks(p.batch), decode_block(), 0, stream, rms_norm_kernel<W>)
  (state.x, static_cast<const W*>(p.norm), static_cast<W*>(p.out), p.shape.dim, p.batch, p.shape.eps);
  return MIMO_LAUNCH_ERROR();
}

template <class W>
LaunchError step(const BackboneStepParams& p, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  return p.batch == 1 ? step<1, W>(p, s) : step<kBatchTile, W>(p, s);
}

}  // namespace

int64_t backbone_step_workspace(const BackboneStepParams& p) { return Plan(p).bytes; }

LaunchError backbone_step(const BackboneStepParams& p, void* stream) {
  return MIMO_FLOAT_OR_HALF(p.dtype, step<T>(p, stream));
}

}  // namespace mimo::cuda
