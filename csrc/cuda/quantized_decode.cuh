// The products of a decode step with quantised weights (cuda/quantized.cuh): what they are taken of becomes int8, they
// go to a buffer of their own, and the units of decode_products.cuh finish them from there. Correct and simple, not
// tuned: five launches for a normed product where unquantised weights need one.
#pragma once
#include <algorithm>

#include "cuda/decode_norm.cuh"
#include "cuda/decode_products.cuh"
#include "cuda/quantized.cuh"

namespace mimo::cuda {

// Empty for unquantised weights.
struct QuantizedBuffers {
  float* normed;    // [batch, dim]
  void* rows;       // of the widest product
  float* products;  // [batch, q, k and v rows] or [batch, gate and up rows]

  static QuantizedBuffers take(Buffers& buffers, const DecodeState& s) {
    if (s.shape.format == WeightFormat::dense) return {};
    const BlockShape& shape = s.shape;
    const int64_t batch = s.batch, queries = int64_t(shape.heads) * shape.head_dim;
    const int64_t qkv = queries + 2 * int64_t(shape.kv_heads) * shape.head_dim;
    const int64_t widest = std::max({int64_t(shape.dim), queries, int64_t(shape.ffn)});
    float* normed = buffers.take<float>(batch * shape.dim);
    void* rows = buffers.take<char>(QuantizedRows::bytes(batch, widest));
    return {normed, rows, buffers.take<float>(batch * std::max(qkv, 2 * int64_t(shape.ffn)))};
  }
};

// Where the products of a unit's two weight rows lie in a buffer's row.
template <class W, class C>
__device__ __forceinline__ int first_product(const QkvUnits<W, C>& units, int unit) {
  const auto at = units.place(unit);
  const BlockShape& shape = units.s.shape;
  const int queries = shape.heads * shape.head_dim, keys = shape.kv_heads * shape.head_dim;
  return at.row + (at.is_q ? 0 : at.is_v ? queries + keys : queries);
}
template <class W, class C>
__device__ __forceinline__ int between_products(const QkvUnits<W, C>& units) {
  return units.half();
}
template <class W>
__device__ __forceinline__ int first_product(const GateUpUnits<W>&, int unit) {
  return unit;
}
template <class W>
__device__ __forceinline__ int between_products(const GateUpUnits<W>& units) {
  return units.ffn;
}

template <class Units>
__global__ void __launch_bounds__(256) finish_kernel(Units units, const float* products, int width) {
  const int unit = int(blockIdx.x) * 256 + int(threadIdx.x), b = int(blockIdx.y);
  wait_for_previous_kernel();
  let_next_kernel_start();
  if (unit >= units.units()) return;
  const float* row = products + int64_t(b) * width + first_product(units, unit);
  units.finish(unit, b, units.read(unit, b), row[0], row[between_products(units)]);
}

template <class Units>
void launch_finish(const Units& units, const DecodeState& s, const float* products, int width, cudaStream_t stream) {
  const dim3 grid(unsigned((units.units() + 255) / 256), unsigned(s.batch));
  MIMO_LAUNCH_EARLY(grid, dim3(256), 0, stream, finish_kernel<Units>)(units, products, width);
}

struct StoreProduct {
  float* to;
  int64_t width;
  __device__ void operator()(int64_t b, int64_t row, float value) const { to[b * width + row] = value; }
};
struct AddProduct {
  float* to;
  int64_t width;
  __device__ void operator()(int64_t b, int64_t row, float value) const { to[b * width + row] += value; }
};

// Makes x [batch, width] int8.
inline QuantizedRows quantize_input(const DecodeState& s, const QuantizedBuffers& buffers, const float* x, int width,
                                    cudaStream_t stream) {
  const QuantizedRows rows = QuantizedRows::at(buffers.rows, s.batch, width);
  launch_quantize_rows(x, rows, s.batch, width, s.shape.format, stream);
  return rows;
}

template <class W>
QuantizedRows quantize_normalized(const DecodeState& s, const QuantizedBuffers& buffers, const void* norm,
                                  cudaStream_t stream) {
  MIMO_LAUNCH_EARLY(unsigned(s.batch), dim3(32, kDecodeWarps), 0, stream, rms_norm_kernel<W, float>)
  (s.x, static_cast<const W*>(norm), buffers.normed, s.shape.dim, s.shape.eps);
  return quantize_input(s, buffers, buffers.normed, s.shape.dim, stream);
}

template <class Store>
void launch_quantized(const DecodeState& s, const void* weight, int rows, int columns, const QuantizedRows& x,
                      const Store& store, cudaStream_t stream) {
  launch_quantized_product({static_cast<const uint8_t*>(weight), s.shape.format, rows, columns}, x, s.batch, store,
                           stream);
}

template <class W, class C>
void launch_quantized_qkv(const DecodeState& s, const QuantizedBuffers& buffers, const BlockWeights& w, int layer,
                          cudaStream_t stream) {
  const int queries = s.shape.heads * s.shape.head_dim, keys = s.shape.kv_heads * s.shape.head_dim;
  const int width = queries + 2 * keys;
  const QuantizedRows x = quantize_normalized<W>(s, buffers, w.norm_1, stream);
  const auto product = [&](const void* weight, int rows, int at) {
    launch_quantized(s, weight, rows, s.shape.dim, x, StoreProduct{buffers.products + at, width}, stream);
  };
  product(w.q, queries, 0);
  product(w.k, keys, queries);
  product(w.v, keys, queries + keys);
  launch_finish(QkvUnits<W, C>{s, w, layer}, s, buffers.products, width, stream);
}

template <class W>
void launch_quantized_gate_up(const DecodeState& s, const QuantizedBuffers& buffers, const BlockWeights& w,
                              cudaStream_t stream) {
  const int ffn = s.shape.ffn;
  const QuantizedRows x = quantize_normalized<W>(s, buffers, w.norm_2, stream);
  launch_quantized(s, w.gate, ffn, s.shape.dim, x, StoreProduct{buffers.products, 2 * ffn}, stream);
  launch_quantized(s, w.up, ffn, s.shape.dim, x, StoreProduct{buffers.products + ffn, 2 * ffn}, stream);
  launch_finish(GateUpUnits<W>{nullptr, nullptr, s.act, ffn}, s, buffers.products, 2 * ffn, stream);
}

// s.x += weight [dim, width] x input.
inline void launch_quantized_add(const DecodeState& s, const QuantizedBuffers& buffers, const void* weight,
                                 const float* input, int width, cudaStream_t stream) {
  const QuantizedRows x = quantize_input(s, buffers, input, width, stream);
  launch_quantized(s, weight, s.shape.dim, width, x, AddProduct{s.x, s.shape.dim}, stream);
}

}  // namespace mimo::cuda
