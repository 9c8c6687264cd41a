// A stack of Qwen2 blocks at one new position per row of a batch, against a cache of the keys and values so far, as a
// sequence of kernels without a host decision between them: a CUDA graph can hold any number of steps.
//
// A block is five kernels, or six:
//   qkv        norm 1, q, k and v products, biases, rotation; k and v go to the cache
//   attention  one or two, the caller's choice (decode_attention.cuh)
//   add        out product, added to x (the products: decode_products.cuh)
//   gate_up    norm 2, gate and up products, SwiGLU
//   add        down product, added to x
//
// Quantised weights take more of them (quantized_decode.cuh).
//
// Activations are float32 for every dtype of the weights; the cache is float32 or has that dtype. No result depends on
// the batch.
#pragma once
#include "cuda/decode_attention.cuh"
#include "cuda/decode_products.cuh"
#include "cuda/quantized_decode.cuh"

namespace mimo::cuda {

// --- kernels around the products -------------------------------------------------------------------------------------

template <class W>
__global__ void widen_kernel(const W* from, float* to, int64_t count) {
  wait_for_previous_kernel();
  let_next_kernel_start();
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) to[i] = widen(from[i]);
}

// --- launches --------------------------------------------------------------------------------------------------------

template <class W>
void launch_widen(const void* from, float* to, int64_t count, cudaStream_t stream) {
  constexpr int kThreads = 256;
  MIMO_LAUNCH_EARLY(unsigned((count + kThreads - 1) / kThreads), kThreads, 0, stream, widen_kernel<W>)
  (static_cast<const W*>(from), to, count);
}

template <class W>
void launch_rms_norm(const DecodeState& s, const void* weight, void* out, cudaStream_t stream) {
  MIMO_LAUNCH_EARLY(unsigned(s.batch), decode_block(), 0, stream, rms_norm_kernel<W, W>)
  (s.x, static_cast<const W*>(weight), static_cast<W*>(out), s.shape.dim, s.shape.eps);
}

// Block number `layer` at the rows' new positions, from x to x; attend() launches what goes from q and the cache (of
// dtype C) to attended.
template <class W, class C, class Attend>
LaunchError launch_decode_block(const DecodeState& s, const QuantizedBuffers& quantized, const BlockWeights& w,
                                int layer, cudaStream_t stream, Attend&& attend) {
  const BlockShape& shape = s.shape;
  if (shape.format != WeightFormat::dense) {
    launch_quantized_qkv<W, C>(s, quantized, w, layer, stream);
    attend();
    launch_quantized_add(s, quantized, w.out, s.attended, shape.heads * shape.head_dim, stream);
    launch_quantized_gate_up<W>(s, quantized, w, stream);
    launch_quantized_add(s, quantized, w.down, s.act, shape.ffn, stream);
    return MIMO_LAUNCH_ERROR();
  }
  launch_qkv<W, C>(s, w, layer, stream);
  attend();
  launch_product<true, W>(w.out, s.attended, shape.heads * shape.head_dim, s.x, shape.dim, s.batch, stream);
  launch_gate_up<W>(s, w, stream);
  launch_product<true, W>(w.down, s.act, shape.ffn, s.x, shape.dim, s.batch, stream);
  return MIMO_LAUNCH_ERROR();
}

}  // namespace mimo::cuda
