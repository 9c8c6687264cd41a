// torch.ops.mimo.stft, istft and their adjoints: schemas, checks, allocation, dispatch. Complex spectra travel as real
// tensors [..., 2] (the stable ABI knows no complex numbers). Definition: mimo_audio_native/reference/stft.py.
#include "mimo/stft.h"

#include "common/spectral.h"

namespace mimo {
namespace {

void check_spectrum(const char* op, const char* name, const Tensor& t) {
  check_dim(op, name, t, 4, "[B, T, n_fft / 2 + 1, 2] (complex numbers as pairs)");
  check_float(op, name, t);
  MIMO_CHECK(t.size(3) == 2, op, ": ", name, " must end in 2 (real and imaginary part), got ", describe(t));
}

Tensor stft(const Tensor& wave, const Tensor& window, int64_t n_fft, int64_t hop, const std::string& padding) {
  const char* op = "stft";
  check_dim(op, "wave", wave, 2, "[B, L]");
  check_float(op, "wave", wave);
  check_like(op, "window", window, "wave", wave);
  check_fft_size(op, "n_fft", n_fft);
  StftParams p{};
  p.framing = framing_of(op, wave.size(1), window, n_fft, hop, padding);
  const Tensor dense = torch::stable::contiguous(wave), dense_window = torch::stable::contiguous(window);
  Tensor out = torch::stable::new_empty(wave, {wave.size(0), p.framing.frames, n_fft / 2 + 1, 2});
  p.in = dense.const_data_ptr();
  p.window = dense_window.const_data_ptr();
  p.out = out.mutable_data_ptr();
  p.batch = wave.size(0);
  p.dtype = dtype_of(op, "wave", wave);
  MIMO_RUN_WITH_WORKSPACE(op, wave, stft, p);
  return out;
}

Tensor stft_backward(const Tensor& grad, const Tensor& window, int64_t n_fft, int64_t hop, const std::string& padding,
                     int64_t length) {
  const char* op = "stft_backward";
  check_spectrum(op, "grad", grad);
  check_like(op, "window", window, "grad", grad);
  check_fft_size(op, "n_fft", n_fft);
  MIMO_CHECK(length >= 0, op, ": length must not be negative, got ", length);
  StftParams p{};
  p.framing = framing_of(op, length, window, n_fft, hop, padding);
  MIMO_CHECK(grad.size(1) == p.framing.frames && grad.size(2) == n_fft / 2 + 1, op, ": grad must be [B, ",
             p.framing.frames, ", ", n_fft / 2 + 1, ", 2], got ", describe(grad));
  const Tensor dense = torch::stable::contiguous(grad), dense_window = torch::stable::contiguous(window);
  Tensor out = torch::stable::new_empty(grad, {grad.size(0), length});
  p.in = dense.const_data_ptr();
  p.window = dense_window.const_data_ptr();
  p.out = out.mutable_data_ptr();
  p.batch = grad.size(0);
  p.dtype = dtype_of(op, "grad", grad);
  MIMO_RUN_WITH_WORKSPACE(op, grad, stft_backward, p);
  return out;
}

Tensor istft(const Tensor& spectrum, const Tensor& window, int64_t hop) {
  const char* op = "istft";
  check_spectrum(op, "spectrum", spectrum);
  check_like(op, "window", window, "spectrum", spectrum);
  const int64_t n_fft = 2 * (spectrum.size(2) - 1);
  check_fft_size(op, "n_fft = 2 (bins - 1)", n_fft);
  check_overlap_add(op, window, n_fft, hop);
  const Tensor dense = torch::stable::contiguous(spectrum), dense_window = torch::stable::contiguous(window);
  Tensor out = torch::stable::new_empty(spectrum, {spectrum.size(0), spectrum.size(1) * hop});
  IstftParams p{};
  p.in = dense.const_data_ptr();
  p.window = dense_window.const_data_ptr();
  p.out = out.mutable_data_ptr();
  p.batch = spectrum.size(0);
  p.frames = spectrum.size(1);
  p.n_fft = int32_t(n_fft);
  p.hop = int32_t(hop);
  p.dtype = dtype_of(op, "spectrum", spectrum);
  MIMO_RUN_WITH_WORKSPACE(op, spectrum, istft, p);
  return out;
}

Tensor istft_backward(const Tensor& grad, const Tensor& window, int64_t hop) {
  const char* op = "istft_backward";
  check_dim(op, "grad", grad, 2, "[B, T * hop]");
  check_float(op, "grad", grad);
  check_like(op, "window", window, "grad", grad);
  check_dim(op, "window", window, 1, "[n_fft]");
  const int64_t n_fft = window.size(0);
  check_fft_size(op, "window's length n_fft", n_fft);
  check_overlap_add(op, window, n_fft, hop);
  MIMO_CHECK(grad.size(1) % hop == 0, op, ": grad's length must be a multiple of hop = ", hop, ", got ",
             describe(grad));
  const Tensor dense = torch::stable::contiguous(grad), dense_window = torch::stable::contiguous(window);
  IstftParams p{};
  p.in = dense.const_data_ptr();
  p.window = dense_window.const_data_ptr();
  p.batch = grad.size(0);
  p.frames = grad.size(1) / hop;
  p.n_fft = int32_t(n_fft);
  p.hop = int32_t(hop);
  p.dtype = dtype_of(op, "grad", grad);
  Tensor out = torch::stable::new_empty(grad, {p.batch, p.frames, n_fft / 2 + 1, 2});
  p.out = out.mutable_data_ptr();
  MIMO_RUN_WITH_WORKSPACE(op, grad, istft_backward, p);
  return out;
}

}  // namespace
}  // namespace mimo

MIMO_DEF(m.def("stft(Tensor wave, Tensor window, int n_fft, int hop, str padding=\"center\") -> Tensor");
         m.def("stft_backward(Tensor grad, Tensor window, int n_fft, int hop, str padding, int length) -> Tensor");
         m.def("istft(Tensor spectrum, Tensor window, int hop) -> Tensor");
         m.def("istft_backward(Tensor grad, Tensor window, int hop) -> Tensor");)
MIMO_IMPL(m.impl("stft", TORCH_BOX(&mimo::stft)); m.impl("stft_backward", TORCH_BOX(&mimo::stft_backward));
          m.impl("istft", TORCH_BOX(&mimo::istft)); m.impl("istft_backward", TORCH_BOX(&mimo::istft_backward));)
