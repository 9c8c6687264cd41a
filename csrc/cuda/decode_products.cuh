// The products of a decode step with its weights, which they stream: a warp owns two of a weight's rows, in 16-byte
// reads where they are aligned, and meets kBatch rows of x with them. Which two rows lets the warp finish alone: the
// two that rotation mixes, gate and up of the same number, neighbours. Warps that read the same weights for other rows
// of x are neighbours in the grid. The RMS norm costs no pass of its own: its weight scales x on the way in, and the
// warp sums the squares as it reads x.
//
// Activations are float32 for every dtype of the weights. A sum runs over a lane's columns in order, then folds the
// lanes, whatever kBatch is: no result depends on the batch.
#pragma once
#include <initializer_list>

#include "cuda/decode_state.cuh"

namespace mimo::cuda {

// --- products --------------------------------------------------------------------------------------------------------

// Which part of a product the warp computes: unit `unit` (two weight rows) and rows row .. row + kBatch - 1 of x.
template <int kBatch>
struct Part {
  int unit, row;

  __device__ __forceinline__ explicit Part(int batch) {
    const unsigned tiles = unsigned(batch + kBatch - 1) / kBatch;
    unit = int(blockIdx.x / tiles) * kDecodeWarps + int(threadIdx.y);
    row = int(blockIdx.x % tiles) * kBatch;
  }
};

template <int kBatch>
unsigned product_blocks(int units, int batch) {
  return unsigned((units + kDecodeWarps - 1) / kDecodeWarps) * unsigned((batch + kBatch - 1) / kBatch);
}

// What a product reads: rows of x [batch, width], normalised by `norm` where that is given.
template <class W>
struct ProductInput {
  const float* x;
  const W* norm;  // or null
  float eps;
  int width, batch;
  bool vectors;  // weights and norm are read 16 bytes at a time
};

// sum[i][b] = (weight row i) . (row b of the input), in every lane. Rows of x beyond the batch repeat the last.
template <int kBatch, class W>
__device__ __forceinline__ void warp_product(const ProductInput<W>& in, const W* first, const W* second, int row,
                                             float (&sum)[2][kBatch]) {
  const float* x[kBatch];
  float squares[kBatch];
#pragma unroll
  for (int b = 0; b < kBatch; ++b) {
    x[b] = in.x + int64_t(min(row + b, in.batch - 1)) * in.width;
    squares[b] = sum[0][b] = sum[1][b] = 0.0f;
  }
  const auto add = [&](int d, float a, float c, float norm) {
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const float value = x[b][d];
      squares[b] = __fmaf_rn(value, value, squares[b]);
      const float scaled = value * norm;
      sum[0][b] = __fmaf_rn(a, scaled, sum[0][b]);
      sum[1][b] = __fmaf_rn(c, scaled, sum[1][b]);
    }
  };
  constexpr int kColumns = kColumnsOf<W>;
  if (in.vectors) {
    for (int d = int(threadIdx.x) * kColumns; d < in.width; d += 32 * kColumns) {
      const Columns<W> a = read_columns(first + d), c = read_columns(second + d);
      Columns<W> norm;
      if (in.norm) norm = read_columns(in.norm + d);
#pragma unroll
      for (int i = 0; i < kColumns; ++i) {
        add(d + i, widen(a.value[i]), widen(c.value[i]), in.norm ? widen(norm.value[i]) : 1.0f);
      }
    }
  } else {
    for (int d = int(threadIdx.x); d < in.width; d += 32) {
      add(d, widen(first[d]), widen(second[d]), in.norm ? widen(in.norm[d]) : 1.0f);
    }
  }
#pragma unroll
  for (int b = 0; b < kBatch; ++b) {
    const float scale = in.norm ? 1.0f / sqrtf(fold_warp(squares[b]) / float(in.width) + in.eps) : 1.0f;
    sum[0][b] = fold_warp(sum[0][b]) * scale;
    sum[1][b] = fold_warp(sum[1][b]) * scale;
  }
}

// What a product can do before its input is there: starts to bring the first 2 KB of two weight rows to the L2 cache.
template <class W>
__device__ __forceinline__ void prefetch_rows(const W* first, const W* second, int width) {
  const int d = int(threadIdx.x) % 16 * int(128 / sizeof(W));
  if (d < width) prefetch((threadIdx.x < 16 ? first : second) + d);
}

// --- kernels ---------------------------------------------------------------------------------------------------------

template <int kBatch, class W, class C>
__global__ void __launch_bounds__(32 * kDecodeWarps)
    qkv_kernel(DecodeState s, BlockWeights w, ProductInput<W> in, int layer) {
  const BlockShape& shape = s.shape;
  const Part<kBatch> part(s.batch);
  const int half = shape.head_dim / 2, all = shape.heads + 2 * shape.kv_heads;
  const int head = part.unit / half, i = part.unit % half;  // heads of q, then k, then v
  if (head >= all) return wait_for_previous_kernel();
  const bool is_q = head < shape.heads, is_v = head >= shape.heads + shape.kv_heads;
  const int own = is_q ? head : head - shape.heads - (is_v ? shape.kv_heads : 0);
  const W* weight = static_cast<const W*>(is_q ? w.q : is_v ? w.v : w.k);
  const W* bias = static_cast<const W*>(is_q ? w.q_bias : is_v ? w.v_bias : w.k_bias);
  const int row = own * shape.head_dim + i;
  const W* first = weight + int64_t(row) * in.width;
  const W* second = first + int64_t(half) * in.width;
  prefetch_rows(first, second, in.width);
  wait_for_previous_kernel();
  let_next_kernel_start();
  float sum[2][kBatch];
  warp_product<kBatch>(in, first, second, part.row, sum);
  if (threadIdx.x != 0) return;
  const float a = widen(bias[row]), c = widen(bias[row + half]);
#pragma unroll
  for (int j = 0; j < kBatch; ++j) {
    const int b = part.row + j;
    if (b >= s.batch) return;
    const int64_t angle = int64_t(s.last(b) - s.first(b)) * half + i;
    const float cos = is_v ? 1.0f : s.cos[angle], sin = is_v ? 0.0f : s.sin[angle];
    const float low = sum[0][j] + a, high = sum[1][j] + c;
    const float turned_low = low * cos - high * sin, turned_high = high * cos + low * sin;
    if (is_q) {
      float* to = s.q + (int64_t(b) * shape.heads + own) * shape.head_dim;
      to[i] = turned_low;
      to[i + half] = turned_high;
    } else {
      C* to = s.cached<C>(layer, is_v) + s.place(b, own, s.last(b));
      narrow(turned_low, to + i);
      narrow(turned_high, to + i + half);
    }
  }
}

template <int kBatch, class W>
__global__ void __launch_bounds__(32 * kDecodeWarps)
    gate_up_kernel(const void* gate, const void* up, ProductInput<W> in, float* act, int ffn) {
  const Part<kBatch> part(in.batch);
  if (part.unit >= ffn) return wait_for_previous_kernel();
  const W* first = static_cast<const W*>(gate) + int64_t(part.unit) * in.width;
  const W* second = static_cast<const W*>(up) + int64_t(part.unit) * in.width;
  prefetch_rows(first, second, in.width);
  wait_for_previous_kernel();
  let_next_kernel_start();
  float sum[2][kBatch];
  warp_product<kBatch>(in, first, second, part.row, sum);
  if (threadIdx.x != 0) return;
#pragma unroll
  for (int j = 0; j < kBatch; ++j) {
    if (part.row + j >= in.batch) return;
    act[int64_t(part.row + j) * ffn + part.unit] = sum[0][j] / (1.0f + std::exp(-sum[0][j])) * sum[1][j];
  }
}

// x [batch, rows] = weight [rows, width] x input, added to x where kAdd.
template <bool kAdd, int kBatch, class W>
__global__ void __launch_bounds__(32 * kDecodeWarps)
    product_kernel(const void* weight, ProductInput<W> in, float* x, int rows) {
  const Part<kBatch> part(in.batch);
  const int n = 2 * part.unit;
  if (n >= rows) return wait_for_previous_kernel();
  const W* first = static_cast<const W*>(weight) + int64_t(n) * in.width;
  const W* second = n + 1 < rows ? first + in.width : first;
  prefetch_rows(first, second, in.width);
  wait_for_previous_kernel();
  let_next_kernel_start();
  float sum[2][kBatch];
  warp_product<kBatch>(in, first, second, part.row, sum);
  const int lane = int(threadIdx.x);
  if (lane > 1 || n + lane >= rows) return;
#pragma unroll
  for (int j = 0; j < kBatch; ++j) {
    if (part.row + j >= in.batch) return;
    float* to = x + int64_t(part.row + j) * rows + n + lane;
    *to = (kAdd ? *to : 0.0f) + sum[lane][j];
  }
}

// --- launches
// ---------------------------------------------------------------------------------------------------------

inline dim3 decode_block() { return dim3(32, kDecodeWarps); }

template <class W>
ProductInput<W> product_input(const float* x, int width, int batch, std::initializer_list<const void*> weights) {
  bool vectors = true;
  for (const void* weight : weights) vectors = vectors && reads_whole_vectors<W>(weight, width);
  return {x, nullptr, 0.0f, width, batch, vectors};
}

// The rows of s.x, normalised.
template <class W>
ProductInput<W> normalized_input(const DecodeState& s, const void* norm, std::initializer_list<const void*> weights) {
  ProductInput<W> in = product_input<W>(s.x, s.shape.dim, s.batch, weights);
  in.vectors = in.vectors && reads_whole_vectors<W>(norm, s.shape.dim);
  in.norm = static_cast<const W*>(norm);
  in.eps = s.shape.eps;
  return in;
}

template <bool kAdd, int kBatch, class W>
void launch_product(const void* weight, const float* input, int width, float* x, int rows, int batch,
                    cudaStream_t stream) {
  MIMO_LAUNCH_EARLY(product_blocks<kBatch>((rows + 1) / 2, batch), decode_block(), 0, stream,
                    product_kernel<kAdd, kBatch, W>)
  (weight, product_input<W>(input, width, batch, {weight}), x, rows);
}

// q, k and v of block number `layer`: norm 1, products, biases, rotation; k and v go to the cache, of dtype C.
template <int kBatch, class W, class C>
void launch_qkv(const DecodeState& s, const BlockWeights& w, int layer, cudaStream_t stream) {
  const BlockShape& shape = s.shape;
  const int pairs = (shape.heads + 2 * shape.kv_heads) * (shape.head_dim / 2);
  MIMO_LAUNCH_EARLY(product_blocks<kBatch>(pairs, s.batch), decode_block(), 0, stream, qkv_kernel<kBatch, W, C>)
  (s, w, normalized_input<W>(s, w.norm_1, {w.q, w.k, w.v}), layer);
}

// act = SwiGLU of the gate and up products of norm 2.
template <int kBatch, class W>
void launch_gate_up(const DecodeState& s, const BlockWeights& w, cudaStream_t stream) {
  MIMO_LAUNCH_EARLY(product_blocks<kBatch>(s.shape.ffn, s.batch), decode_block(), 0, stream, gate_up_kernel<kBatch, W>)
  (w.gate, w.up, normalized_input<W>(s, w.norm_2, {w.gate, w.up}), s.act, s.shape.ffn);
}

}  // namespace mimo::cuda
