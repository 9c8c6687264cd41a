// torch.ops.mimo.log_mel and its adjoint: schemas, checks, allocation, dispatch. Definition:
// mimo_audio_native/reference/log_mel.py.
#include "mimo/log_mel.h"

#include <limits>

#include "common/spectral.h"

namespace mimo {
namespace {

// Everything but grad and out; `hold` keeps contiguous copies alive.
LogMelParams params_of(const char* op, const Tensor& wave, const Tensor& window, const Tensor& filterbank, int64_t hop,
                       double floor, const std::string& padding, std::vector<Tensor>& hold) {
  check_dim(op, "wave", wave, 2, "[B, L]");
  check_float(op, "wave", wave);
  check_like(op, "window", window, "wave", wave);
  check_dim(op, "filterbank", filterbank, 2, "[n_fft / 2 + 1, n_mels]");
  check_like(op, "filterbank", filterbank, "wave", wave);
  MIMO_CHECK(filterbank.size(1) >= 1 && filterbank.size(1) <= INT32_MAX, op,
             ": filterbank must have at least one column, got ", describe(filterbank));
  const int64_t n_fft = 2 * (filterbank.size(0) - 1);
  check_fft_size(op, "n_fft = 2 (filterbank's rows - 1)", n_fft);
  const bool wide = wave.scalar_type() == ScalarType::Double;
  const double least = wide ? std::numeric_limits<double>::min() : std::numeric_limits<float>::min();
  const double most = wide ? std::numeric_limits<double>::max() : std::numeric_limits<float>::max();
  MIMO_CHECK(floor >= least && floor <= most, op, ": floor must be a normal positive number of wave's dtype (", least,
             " to ", most, "), got ", floor);
  LogMelParams p{};
  p.framing = framing_of(op, wave.size(1), window, n_fft, hop, padding);
  for (const Tensor* t : {&wave, &window, &filterbank}) hold.push_back(torch::stable::contiguous(*t));
  p.wave = hold[0].const_data_ptr();
  p.window = hold[1].const_data_ptr();
  p.filterbank = hold[2].const_data_ptr();
  p.batch = wave.size(0);
  p.floor = floor;
  p.n_mels = int32_t(filterbank.size(1));
  p.dtype = dtype_of(op, "wave", wave);
  return p;
}

Tensor log_mel(const Tensor& wave, const Tensor& window, const Tensor& filterbank, int64_t hop, double floor,
               const std::string& padding) {
  const char* op = "log_mel";
  std::vector<Tensor> hold;
  LogMelParams p = params_of(op, wave, window, filterbank, hop, floor, padding, hold);
  Tensor out = torch::stable::new_empty(wave, {p.batch, p.framing.frames, p.n_mels});
  p.out = out.mutable_data_ptr();
  MIMO_RUN_WITH_WORKSPACE(op, wave, log_mel, p);
  return out;
}

Tensor log_mel_backward(const Tensor& grad, const Tensor& wave, const Tensor& window, const Tensor& filterbank,
                        int64_t hop, double floor, const std::string& padding) {
  const char* op = "log_mel_backward";
  std::vector<Tensor> hold;
  LogMelParams p = params_of(op, wave, window, filterbank, hop, floor, padding, hold);
  check_dim(op, "grad", grad, 3, "[B, T, n_mels]");
  check_like(op, "grad", grad, "wave", wave);
  MIMO_CHECK(grad.size(0) == p.batch && grad.size(1) == p.framing.frames && grad.size(2) == p.n_mels, op,
             ": grad must be [", p.batch, ", ", p.framing.frames, ", ", p.n_mels, "], got ", describe(grad));
  hold.push_back(torch::stable::contiguous(grad));
  p.grad = hold.back().const_data_ptr();
  Tensor out = torch::stable::new_empty(wave, {p.batch, p.framing.length});
  p.out = out.mutable_data_ptr();
  MIMO_RUN_WITH_WORKSPACE(op, wave, log_mel_backward, p);
  return out;
}

}  // namespace
}  // namespace mimo

MIMO_DEF(
    m.def("log_mel(Tensor wave, Tensor window, Tensor filterbank, int hop, float floor=1e-7, "
          "str padding=\"center\") -> Tensor");
    m.def("log_mel_backward(Tensor grad, Tensor wave, Tensor window, Tensor filterbank, int hop, float floor, "
          "str padding) -> Tensor");)
MIMO_IMPL(m.impl("log_mel", TORCH_BOX(&mimo::log_mel)); m.impl("log_mel_backward", TORCH_BOX(&mimo::log_mel_backward));)
