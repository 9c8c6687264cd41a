// torch.ops.mimo.vocoder_head and its adjoint: schemas, checks, allocation, dispatch. Definition:
// mimo_audio_native/reference/vocoder_head.py.
#include "mimo/vocoder_head.h"

#include <cmath>
#include <optional>

#include "common/spectral.h"

namespace mimo {
namespace {

PackedSequences sequences_of(const char* op, const std::optional<Tensor>& cu_seqlens, const Tensor& x,
                             std::vector<Tensor>& hold) {
  PackedSequences s{};
  s.rows = x.size(0);
  s.count = 1;
  if (!cu_seqlens.has_value()) return s;
  const Tensor& bounds = *cu_seqlens;
  check_dim(op, "cu_seqlens", bounds, 1, "[B + 1]");
  check_dtype(op, "cu_seqlens", bounds, {ScalarType::Int, ScalarType::Long});
  check_same_device(op, "cu_seqlens", bounds, "x", x);
  MIMO_CHECK(bounds.size(0) >= 1, op, ": cu_seqlens must have at least one entry [B + 1], got ", describe(bounds));
  hold.push_back(torch::stable::contiguous(bounds));
  s.count = bounds.size(0) - 1;
  if (bounds.scalar_type() == ScalarType::Int) {
    s.bounds32 = hold.back().const_data_ptr<int32_t>();
  } else {
    s.bounds64 = hold.back().const_data_ptr<int64_t>();
  }
  if (x.is_cpu()) {
    MIMO_CHECK(s.bound(0) == 0, op, ": cu_seqlens must start at 0, got ", s.bound(0));
    for (int64_t b = 0; b < s.count; ++b) {
      MIMO_CHECK(s.bound(b) <= s.bound(b + 1), op, ": cu_seqlens must never decrease, got ", s.bound(b), " then ",
                 s.bound(b + 1), " at ", b + 1);
    }
    MIMO_CHECK(s.bound(s.count) == s.rows, op, ": cu_seqlens must end at T = ", s.rows, ", got ", s.bound(s.count));
  }
  return s;
}

// Everything but grad and out; `hold` keeps contiguous copies alive.
VocoderHeadParams params_of(const char* op, const Tensor& x, const Tensor& window, int64_t hop,
                            const std::optional<Tensor>& cu_seqlens, double max_magnitude, std::vector<Tensor>& hold) {
  check_dim(op, "x", x, 2, "[T, n_fft + 2]");
  check_float(op, "x", x);
  check_like(op, "window", window, "x", x);
  const int64_t n_fft = x.size(1) - 2;
  check_fft_size(op, "n_fft = x's columns - 2", n_fft);
  check_overlap_add(op, window, n_fft, hop);
  MIMO_CHECK(std::isfinite(max_magnitude) && max_magnitude > 0, op, ": max_magnitude must be positive and finite, got ",
             max_magnitude);
  VocoderHeadParams p{};
  hold.push_back(torch::stable::contiguous(x));
  p.x = hold.back().const_data_ptr();
  hold.push_back(torch::stable::contiguous(window));
  p.window = hold.back().const_data_ptr();
  p.sequences = sequences_of(op, cu_seqlens, x, hold);
  p.max_magnitude = max_magnitude;
  p.n_fft = int32_t(n_fft);
  p.hop = int32_t(hop);
  p.dtype = dtype_of(op, "x", x);
  return p;
}

Tensor vocoder_head(const Tensor& x, const Tensor& window, int64_t hop, const std::optional<Tensor>& cu_seqlens,
                    double max_magnitude) {
  const char* op = "vocoder_head";
  std::vector<Tensor> hold;
  VocoderHeadParams p = params_of(op, x, window, hop, cu_seqlens, max_magnitude, hold);
  Tensor out = torch::stable::new_empty(x, {x.size(0) * hop});
  p.out = out.mutable_data_ptr();
  MIMO_RUN_WITH_WORKSPACE(op, x, vocoder_head, p);
  return out;
}

Tensor vocoder_head_backward(const Tensor& grad, const Tensor& x, const Tensor& window, int64_t hop,
                             const std::optional<Tensor>& cu_seqlens, double max_magnitude) {
  const char* op = "vocoder_head_backward";
  std::vector<Tensor> hold;
  VocoderHeadParams p = params_of(op, x, window, hop, cu_seqlens, max_magnitude, hold);
  check_dim(op, "grad", grad, 1, "[T * hop]");
  check_like(op, "grad", grad, "x", x);
  MIMO_CHECK(grad.size(0) == x.size(0) * hop, op, ": grad must be [", x.size(0) * hop, "], got ", describe(grad));
  hold.push_back(torch::stable::contiguous(grad));
  p.grad = hold.back().const_data_ptr();
  Tensor out = torch::stable::new_empty(x, {x.size(0), x.size(1)});
  p.out = out.mutable_data_ptr();
  MIMO_RUN_WITH_WORKSPACE(op, x, vocoder_head_backward, p);
  return out;
}

}  // namespace
}  // namespace mimo

MIMO_DEF(
    m.def("vocoder_head(Tensor x, Tensor window, int hop, Tensor? cu_seqlens=None, float max_magnitude=100.0) "
          "-> Tensor");
    m.def("vocoder_head_backward(Tensor grad, Tensor x, Tensor window, int hop, Tensor? cu_seqlens, "
          "float max_magnitude) -> Tensor");)
MIMO_IMPL(m.impl("vocoder_head", TORCH_BOX(&mimo::vocoder_head));
          m.impl("vocoder_head_backward", TORCH_BOX(&mimo::vocoder_head_backward));)
