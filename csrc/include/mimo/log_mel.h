// Log-mel spectrogram: parameters and launch prototypes (MiMo-Audio report, section 2.1).
#pragma once
#include <cstdint>

#include "common/cpu_dispatch.h"
#include "mimo/dtype.h"
#include "mimo/stft.h"

namespace mimo {

// log_mel:          out [B, T, n_mels] = log(max(floor, |spectrum| x filterbank)); grad is null
// log_mel_backward: out [B, L], the wave's gradient, from grad [B, T, n_mels]: 0 where the mel value is below the
//                   floor (not where it equals it, as torch's clamp), and 0 through a bin whose magnitude is 0.
struct LogMelParams {
  const void* wave;        // [B, L]
  const void* window;      // [W]
  const void* filterbank;  // [n_fft / 2 + 1, n_mels], any matrix; mel filters are mostly zeros
  const void* grad;
  void* out;
  void* workspace;  // CUDA only
  Framing framing;
  int64_t batch;
  double floor;    // a normal positive number of the dtype
  int32_t n_mels;  // >= 1
  DType dtype;     // f32 or f64
};

namespace cpu {
MIMO_CPU_KERNEL(void, log_mel, const LogMelParams&)
MIMO_CPU_KERNEL(void, log_mel_backward, const LogMelParams&)
}  // namespace cpu
namespace cuda {
int64_t log_mel_workspace(const LogMelParams&);
int64_t log_mel_backward_workspace(const LogMelParams&);
LaunchError log_mel(const LogMelParams&, void* stream);
LaunchError log_mel_backward(const LogMelParams&, void* stream);
}  // namespace cuda

}  // namespace mimo
