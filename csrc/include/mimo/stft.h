// Short-time Fourier transform and its inverse: parameters and launch prototypes. log_mel.h shares the framing.
#pragma once
#include <cstdint>

#include "common/cpu_dispatch.h"
#include "mimo/dtype.h"

namespace mimo {

inline constexpr int kMaxFft = 8192;  // two float64 buffers of a frame still fit a GPU block's shared memory

// Even, 2 .. kMaxFft, without prime factors other than 2, 3 and 5.
constexpr bool fft_size_supported(int64_t n_fft) {
  if (n_fft < 2 || n_fft > kMaxFft || n_fft % 2 != 0) return false;
  while (n_fft % 2 == 0) n_fft /= 2;
  while (n_fft % 3 == 0) n_fft /= 3;
  while (n_fft % 5 == 0) n_fft /= 5;
  return n_fft == 1;
}

// How a signal of `length` samples is cut into frames. Sample j of frame t is
//   wave[reflect(t * hop - left + j)] * window[j - window_left]      (0 where the window has no sample),
// where reflect folds at both ends as often as it takes.
struct Framing {
  int64_t length;         // L > 0, unless frames is 0
  int64_t frames;         // T
  int32_t n_fft;          // fft_size_supported
  int32_t hop;            // > 0, may exceed n_fft
  int32_t left;           // samples before the signal in frame 0; negative: frame 0 starts inside the signal
  int32_t window_length;  // W <= n_fft
  int32_t window_left;    // zeros before the window
};

// "center" padding has n_fft / 2 samples before the signal and T = 1 + L / hop, "same" (n_fft - hop) / 2 and T = L /
// hop.
[[gnu::always_inline]] constexpr Framing make_framing(int64_t length, int64_t window_length, int64_t n_fft, int64_t hop,
                                                      bool center) {
  Framing f{};
  f.length = length;
  f.frames = center ? 1 + length / hop : length / hop;
  f.n_fft = int32_t(n_fft);
  f.hop = int32_t(hop);
  f.left = int32_t(center ? n_fft / 2 : (n_fft - hop) >> 1);
  f.window_length = int32_t(window_length);
  f.window_left = int32_t(n_fft - window_length) / 2;
  return f;
}

// Always inlined: CPU kernels may define no shared inline functions (cpu/isa.h).
[[gnu::always_inline]] constexpr int64_t reflect(int64_t index, int64_t length) {
  if (index < 0) index = -index;  // padding is even around sample 0
  if (index < length) return index;
  if (length == 1) return 0;
  const int64_t period = 2 * (length - 1);
  if (index >= period) index %= period;
  return index < length ? index : period - index;
}

// stft:          in wave [B, L]                       -> out spectrum [B, T, n_fft / 2 + 1, 2]
// stft_backward: in the spectrum's gradient, as above -> out the wave's gradient [B, L]
struct StftParams {
  const void* in;
  const void* window;  // [W]
  void* out;
  void* workspace;  // CUDA only: cuda::stft_workspace (or stft_backward_workspace) bytes, 16-byte aligned
  Framing framing;
  int64_t batch;
  DType dtype;  // f32 or f64
};

// istft:          in spectrum [B, T, n_fft / 2 + 1, 2]         -> out wave [B, T * hop]
// istft_backward: in the wave's gradient [B, T * hop]          -> out the spectrum's gradient
// The inverse of "same" padding: windowed overlap-add from sample -(n_fft - hop) / 2 on (rounded down), divided by the
// overlap-added squared window. The imaginary parts of bins 0 and n_fft / 2 are ignored, their gradients are 0.
struct IstftParams {
  const void* in;
  const void* window;  // [n_fft]
  void* out;
  void* workspace;
  int64_t batch;
  int64_t frames;  // T
  int32_t n_fft;   // fft_size_supported
  int32_t hop;     // 0 < hop <= n_fft
  DType dtype;     // f32 or f64
};

namespace cpu {
MIMO_CPU_KERNEL(void, stft, const StftParams&)
MIMO_CPU_KERNEL(void, stft_backward, const StftParams&)
MIMO_CPU_KERNEL(void, istft, const IstftParams&)
MIMO_CPU_KERNEL(void, istft_backward, const IstftParams&)
}  // namespace cpu
namespace cuda {
// Bytes of workspace that the launch of the same name wants; the workspace is uninitialised.
int64_t stft_workspace(const StftParams&);
int64_t stft_backward_workspace(const StftParams&);
int64_t istft_workspace(const IstftParams&);
int64_t istft_backward_workspace(const IstftParams&);
LaunchError stft(const StftParams&, void* stream);
LaunchError stft_backward(const StftParams&, void* stream);
LaunchError istft(const IstftParams&, void* stream);
LaunchError istft_backward(const IstftParams&, void* stream);
}  // namespace cuda

}  // namespace mimo
