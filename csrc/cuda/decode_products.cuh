// The products of a decode step with its weights. A unit is two weight rows that one thread finishes: the two that
// rotation mixes, gate and up of the same number, neighbours. Two kernels:
//   tensor  half-precision weights in whole 16-byte vectors: tensor cores, decode_tensor_products.cuh
//   warp    all others: a warp per unit meets kBatch rows of x with it, float32 in 16-byte reads where it can
// Both stream the weights once per 64, or kBatch, rows of x. The RMS norm costs no pass of its own: its weight scales x
// on the way in, and who reads x sums its squares.
//
// Activations are float32 for every dtype of the weights. Which kernel it is and the order of its sums follow from the
// weights alone: no result depends on the batch.
#pragma once
#include <initializer_list>

#include "cuda/decode_tensor_products.cuh"

namespace mimo::cuda {

// --- what is computed ------------------------------------------------------------------------------------------------
// units() of them; rows(unit, width): its two weight rows; finish(unit, b, more, ..): takes their products with row b
// of x; more = read(unit, b): what that needs from memory, so that it can be on its way before.

// q, k and v: biases, rotation; k and v go to the cache, of dtype C.
template <class W, class C>
struct QkvUnits {
  static constexpr bool kNorm = true;
  DecodeState s;
  BlockWeights w;
  int layer;

  struct Place {  // units: pairs of a head; heads of q, then k, then v
    int head, i, row;
    bool is_q, is_v;
  };
  __host__ __device__ int half() const { return s.shape.head_dim / 2; }
  __host__ __device__ int units() const { return (s.shape.heads + 2 * s.shape.kv_heads) * half(); }
  __device__ __forceinline__ Place place(int unit) const {
    const int head = unit / half(), i = unit % half();
    const bool is_q = head < s.shape.heads, is_v = head >= s.shape.heads + s.shape.kv_heads;
    const int own = is_q ? head : head - s.shape.heads - (is_v ? s.shape.kv_heads : 0);
    return {own, i, own * s.shape.head_dim + i, is_q, is_v};
  }
  __device__ __forceinline__ UnitRows<W> rows(int unit, int width) const {
    const Place at = place(unit);
    const W* first = static_cast<const W*>(at.is_q ? w.q : at.is_v ? w.v : w.k) + int64_t(at.row) * width;
    return {first, first + int64_t(half()) * width};
  }
  struct More {
    float low, high, cos, sin;  // biases, rotation
  };
  __device__ __forceinline__ More read(int unit, int b) const {
    const Place at = place(unit);
    const W* bias = static_cast<const W*>(at.is_q ? w.q_bias : at.is_v ? w.v_bias : w.k_bias) + at.row;
    const int64_t angle = int64_t(s.fresh(b) - s.first(b)) * half() + at.i;
    return {widen(bias[0]), widen(bias[half()]), at.is_v ? 1.0f : s.cos[angle], at.is_v ? 0.0f : s.sin[angle]};
  }
  __device__ __forceinline__ void finish(int unit, int b, const More& more, float first, float second) const {
    const Place at = place(unit);
    const float low = first + more.low, high = second + more.high;
    const float turned_low = low * more.cos - high * more.sin, turned_high = high * more.cos + low * more.sin;
    if (at.is_q) {
      float* to = s.q + (int64_t(b) * s.shape.heads + at.head) * s.shape.head_dim + at.i;
      to[0] = turned_low;
      to[half()] = turned_high;
    } else {
      const int64_t from = s.new_place(b, at.head);
      if (from < 0) return;
      C* to = s.cached<C>(layer, at.is_v) + from + at.i;
      narrow(turned_low, to);
      narrow(turned_high, to + half());
    }
  }
};

// act [batch, ffn] = SwiGLU of gate and up.
template <class W>
struct GateUpUnits {
  static constexpr bool kNorm = true;
  const W *gate, *up;
  float* act;
  int ffn;

  __host__ __device__ int units() const { return ffn; }
  __device__ __forceinline__ UnitRows<W> rows(int unit, int width) const {
    return {gate + int64_t(unit) * width, up + int64_t(unit) * width};
  }
  struct More {};
  __device__ __forceinline__ More read(int, int) const { return {}; }
  __device__ __forceinline__ void finish(int unit, int b, const More&, float first, float second) const {
    act[int64_t(b) * ffn + unit] = first / (1.0f + std::exp(-first)) * second;
  }
};

// x [batch, count] = weight [count, width] x input, added to x where kAdd.
template <bool kAdd, class W>
struct OutputUnits {
  static constexpr bool kNorm = false;
  const W* weight;
  float* x;
  int count;

  __host__ __device__ int units() const { return (count + 1) / 2; }
  __device__ __forceinline__ UnitRows<W> rows(int unit, int width) const {
    const W* first = weight + 2 * int64_t(unit) * width;
    return {first, both(unit) ? first + width : first};
  }
  __device__ __forceinline__ bool both(int unit) const { return 2 * unit + 1 < count; }
  __device__ __forceinline__ float* place(int unit, int b) const { return x + int64_t(b) * count + 2 * unit; }
  struct More {
    float first, second;  // what is added to
  };
  __device__ __forceinline__ More read(int unit, int b) const {
    const float* from = place(unit, b);
    return {kAdd ? from[0] : 0.0f, kAdd && both(unit) ? from[1] : 0.0f};
  }
  __device__ __forceinline__ void finish(int unit, int b, const More& more, float first, float second) const {
    float* to = place(unit, b);
    to[0] = more.first + first;
    if (both(unit)) to[1] = more.second + second;
  }
};

// --- a warp per unit -------------------------------------------------------------------------------------------------

// sum[i][b] = (weight row i) . (row b of the input), in every lane. Rows of x beyond the batch repeat the last.
template <bool kNorm, int kBatch, class W>
__device__ __forceinline__ void warp_product(const ProductInput<W>& in, const UnitRows<W>& rows, int row,
                                             float (&sum)[2][kBatch]) {
  const float* x[kBatch];
  float squares[kBatch];
#pragma unroll
  for (int b = 0; b < kBatch; ++b) {
    x[b] = in.x + int64_t(min(row + b, in.batch - 1)) * in.width;
    squares[b] = sum[0][b] = sum[1][b] = 0.0f;
  }
  const auto add = [&](int b, float value, float first, float second, float norm) {
    if constexpr (kNorm) squares[b] = __fmaf_rn(value, value, squares[b]);
    const float scaled = kNorm ? value * norm : value;
    sum[0][b] = __fmaf_rn(first, scaled, sum[0][b]);
    sum[1][b] = __fmaf_rn(second, scaled, sum[1][b]);
  };
  if (std::is_same_v<W, float> && in.vectors) {
#pragma unroll 4
    for (int d = int(threadIdx.x) * 4; d < in.width; d += 32 * 4) {
      const Columns<W> first = read_columns(rows.first + d), second = read_columns(rows.second + d);
      Columns<W> norm{};
      if constexpr (kNorm) norm = read_columns(in.norm + d);
#pragma unroll
      for (int b = 0; b < kBatch; ++b) {
        const Columns<float> values = read_columns(x[b] + d);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          add(b, values.value[i], widen(first.value[i]), widen(second.value[i]), widen(norm.value[i]));
        }
      }
    }
  } else {
    for (int d = int(threadIdx.x); d < in.width; d += 32) {
      const float first = widen(rows.first[d]), second = widen(rows.second[d]);
      const float norm = kNorm ? widen(in.norm[d]) : 1.0f;
#pragma unroll
      for (int b = 0; b < kBatch; ++b) add(b, x[b][d], first, second, norm);
    }
  }
#pragma unroll
  for (int b = 0; b < kBatch; ++b) {
    const float scale = kNorm ? 1.0f / sqrtf(fold_warp(squares[b]) / float(in.width) + in.eps) : 1.0f;
    sum[0][b] = fold_warp(sum[0][b]) * scale;
    sum[1][b] = fold_warp(sum[1][b]) * scale;
  }
}

// What a product can do before its input is there: starts to bring the first 2 KB of two weight rows to the L2 cache.
template <class W>
__device__ __forceinline__ void prefetch_rows(const UnitRows<W>& rows, int width) {
  const int d = int(threadIdx.x) % 16 * int(128 / sizeof(W));
  if (d < width) prefetch((threadIdx.x < 16 ? rows.first : rows.second) + d);
}

// Warps that read the same weights for other rows of x are neighbours in the grid.
template <int kBatch, class W, class Units>
__global__ void __launch_bounds__(32 * kDecodeWarps) warp_product_kernel(Units units, ProductInput<W> in) {
  const unsigned tiles = unsigned(in.batch + kBatch - 1) / kBatch;
  const int unit = int(blockIdx.x / tiles) * kDecodeWarps + int(threadIdx.y), row = int(blockIdx.x % tiles) * kBatch;
  if (unit >= units.units()) return wait_for_previous_kernel();
  const UnitRows<W> rows = units.rows(unit, in.width);
  prefetch_rows(rows, in.width);
  wait_for_previous_kernel();
  let_next_kernel_start();
  float sum[2][kBatch];
  warp_product<Units::kNorm, kBatch>(in, rows, row, sum);
  if (threadIdx.x != 0) return;
#pragma unroll
  for (int j = 0; j < kBatch; ++j) {
    if (row + j < in.batch) units.finish(unit, row + j, units.read(unit, row + j), sum[0][j], sum[1][j]);
  }
}

// --- launches --------------------------------------------------------------------------------------------------------

inline dim3 decode_block() { return dim3(32, kDecodeWarps); }

template <class W, class Units>
void launch_units(const Units& units, const ProductInput<W>& in, cudaStream_t stream) {
  if constexpr (sizeof(W) == 2) {
    if (in.vectors) return launch_tensor_product(units, in, stream);
  }
  const auto launch = [&](auto batch_tile) {
    constexpr int kBatch = decltype(batch_tile)::value;
    const unsigned blocks = unsigned((units.units() + kDecodeWarps - 1) / kDecodeWarps);
    MIMO_LAUNCH_EARLY(blocks * unsigned((in.batch + kBatch - 1) / kBatch), decode_block(), 0, stream,
                      warp_product_kernel<kBatch, W, Units>)
    (units, in);
  };
  if (in.batch == 1) {
    launch(std::integral_constant<int, 1>{});
  } else {
    launch(std::integral_constant<int, 4>{});
  }
}

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

// x [batch, rows] = weight [rows, width] x input, added to x where kAdd.
template <bool kAdd, class W>
void launch_product(const void* weight, const float* input, int width, float* x, int rows, int batch,
                    cudaStream_t stream) {
  launch_units(OutputUnits<kAdd, W>{static_cast<const W*>(weight), x, rows},
               product_input<W>(input, width, batch, {weight}), stream);
}

// q, k and v of block number `layer` from norm 1 of s.x.
template <class W, class C>
void launch_qkv(const DecodeState& s, const BlockWeights& w, int layer, cudaStream_t stream) {
  launch_units(QkvUnits<W, C>{s, w, layer}, normalized_input<W>(s, w.norm_1, {w.q, w.k, w.v}), stream);
}

// s.act from norm 2 of s.x.
template <class W>
void launch_gate_up(const DecodeState& s, const BlockWeights& w, cudaStream_t stream) {
  launch_units(GateUpUnits<W>{static_cast<const W*>(w.gate), static_cast<const W*>(w.up), s.act, s.shape.ffn},
               normalized_input<W>(s, w.norm_2, {w.gate, w.up}), stream);
}

}  // namespace mimo::cuda
