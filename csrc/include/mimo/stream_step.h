// A step of the tokenizer's decoder for a batch of streams: parameters and launch prototypes (MiMo-Audio report,
// section 2.1). On the CPU only; elsewhere the ops are their definitions.
#pragma once
#include <cstdint>

#include "common/cpu_dispatch.h"
#include "mimo/dtype.h"
#include "mimo/stft.h"  // fft_size_supported

namespace mimo {

enum class Activation : uint8_t { gelu, gelu_tanh, relu, silu };

// Where every stream of a batch is.
struct Streams {
  const int64_t* position;  // [batch], the number of a stream's first new row
  const int64_t* end;       // [batch], rows of the stream
  const uint8_t* active;    // [batch], or null: all; the others stay as they are, and their results are 0
  int32_t batch, rows;      // new rows of every stream

  [[gnu::always_inline]] constexpr bool is_active(int b) const { return !active || active[b]; }
};

// The tensors of a block, all of one dtype; D: dim, F: ffn. Without norm biases the norms are RMS norms.
struct StreamBlock {
  const void *norm_1, *norm_1_bias;                   // [D]
  const void *q, *q_bias, *k, *v, *v_bias;            // [D, D], [D]
  const void *out, *out_bias, *norm_2, *norm_2_bias;  // [D, D], [D]
  const void *fc1, *fc1_bias, *fc2, *fc2_bias;        // [F, D], [F], [D, F], [D]
};

// Block l sees rights[l] rows ahead: it works so many rows behind its input.
struct StreamLayersParams {
  const void* x;              // [batch, rows, dim]
  const StreamBlock* blocks;  // [layers]
  const int64_t* rights;      // [layers]
  const double* frequency;    // [head_dim / 2], radians per position
  void* cache;                // [batch, layers, 2, heads, ring, head_dim]: row g of a stream's input at g % ring
  void* behind;               // [batch, sum of rights, dim]: rows that wait in front of a block
  void* out;                  // [batch, rows, dim]
  Streams streams;            // the end counts from the first row on, `delay` not included
  int64_t left, delay;        // rows of memory; rows that x lags behind
  float eps;
  int32_t layers, dim, heads, head_dim, ffn, ring;  // ring >= left + largest right + rows
  Activation activation;
  DType dtype;
};

// y = transposed convolution of x, what reaches beyond the last row carried over; then its group norm, whose statistics
// are those of the stream so far: every `group` rows of x they fade by `keep`.
struct StreamUpConvolutionParams {
  const void* x;                        // [batch, rows, inputs]
  const void* weight;                   // [inputs, outputs, kernel]
  const void* bias;                     // [outputs], or null
  const void *norm_weight, *norm_bias;  // [outputs]
  float* carry;                         // [batch, kernel - stride, outputs]
  float* line;                          // [batch, behind, outputs]: rows that wait for their norm
  double* sums;                         // [batch, 3]: how many numbers, their sum and sum of squares
  void* out;                            // [batch, rows * stride, outputs], `behind` rows late
  Streams streams;
  double keep, eps;
  int32_t inputs, outputs, kernel, stride, behind, group;  // group divides rows
  DType dtype;
};

// Inverse STFT with "same" padding; the samples are those that no later frame reaches.
struct StreamIstftParams {
  const float* x;        // [batch, rows, n_fft + 2], log-magnitudes and phases
  const float* window;   // [n_fft]
  const float* advance;  // [period, n_fft / 2 + 1], added to the phases of frame position % period; or null
  float* carry;          // [batch, 2, n_fft - hop], of the signal and of the envelope
  float* out;            // [batch, rows * hop]
  Streams streams;       // rows are frames; those before the stream's first are silent
  float max_magnitude;
  int32_t n_fft, hop, period;
};

namespace cpu {
MIMO_CPU_KERNEL(void, stream_layers, const StreamLayersParams&)
MIMO_CPU_KERNEL(void, stream_up_convolution, const StreamUpConvolutionParams&)
MIMO_CPU_KERNEL(void, stream_istft, const StreamIstftParams&)
}  // namespace cpu

}  // namespace mimo
