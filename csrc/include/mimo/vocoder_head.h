// The vocoder's output head, log-magnitude and phase to waveform: parameters and launch prototypes (MiMo-Audio report,
// section 2.1).
#pragma once
#include <cstdint>

#include "common/cpu_dispatch.h"
#include "mimo/dtype.h"
#include "mimo/stft.h"  // fft_size_supported

namespace mimo {

// Packed sequences: sequence b is rows bound(b) .. bound(b + 1). Bounds start at 0, never decrease and end at the
// number of rows: checked by the op on the CPU, by the kernel on CUDA (MIMO_DEVICE_CHECK), so that nothing
// synchronises.
struct PackedSequences {
  const int32_t* bounds32;  // [count + 1], or null
  const int64_t* bounds64;  // [count + 1], or null; both null: one sequence of all rows
  int64_t count;
  int64_t rows;

  [[gnu::always_inline]] constexpr int64_t bound(int64_t b) const {
    return bounds32 ? bounds32[b] : bounds64 ? bounds64[b] : b * rows;
  }
};

// vocoder_head:          out wave [T * hop]; grad is null
// vocoder_head_backward: out x's gradient [T, n_fft + 2] from grad [T * hop]
// Row t of x holds n_fft / 2 + 1 log-magnitudes a, then as many phases p: bin = min(exp(a), max_magnitude) e^(ip). Then
// per sequence what istft does. A clipped magnitude (exp(a) > max_magnitude) gets no gradient.
struct VocoderHeadParams {
  const void* x;       // [T, n_fft + 2]
  const void* window;  // [n_fft]
  const void* grad;
  void* out;
  void* workspace;            // CUDA only
  PackedSequences sequences;  // rows = T
  double max_magnitude;       // > 0
  int32_t n_fft;              // fft_size_supported
  int32_t hop;                // 0 < hop <= n_fft
  DType dtype;                // f32 or f64
};

namespace cpu {
MIMO_CPU_KERNEL(void, vocoder_head, const VocoderHeadParams&)
MIMO_CPU_KERNEL(void, vocoder_head_backward, const VocoderHeadParams&)
}  // namespace cpu
namespace cuda {
int64_t vocoder_head_workspace(const VocoderHeadParams&);
int64_t vocoder_head_backward_workspace(const VocoderHeadParams&);
LaunchError vocoder_head(const VocoderHeadParams&, void* stream);
LaunchError vocoder_head_backward(const VocoderHeadParams&, void* stream);
}  // namespace cuda

}  // namespace mimo
