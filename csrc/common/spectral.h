// Argument checks that stft, log_mel and vocoder_head share.
#pragma once
#include <string>

#include "common/torch_api.h"
#include "mimo/stft.h"

namespace mimo {

inline void check_fft_size(const char* op, const char* name, int64_t n_fft) {
  MIMO_CHECK(fft_size_supported(n_fft), op, ": ", name, " must be an even number from 2 to ", kMaxFft,
             " without prime factors other than 2, 3 and 5, got ", n_fft);
}

inline void check_float(const char* op, const char* name, const Tensor& t) {
  check_dtype(op, name, t, {ScalarType::Float, ScalarType::Double});
}

// dtype and device of the op's first tensor.
inline void check_like(const char* op, const char* name, const Tensor& t, const char* first_name, const Tensor& first) {
  check_same_dtype(op, name, t, first_name, first);
  check_same_device(op, name, t, first_name, first);
}

// Checks what cuts a signal of `length` samples into frames.
inline Framing framing_of(const char* op, int64_t length, const Tensor& window, int64_t n_fft, int64_t hop,
                          const std::string& padding) {
  check_dim(op, "window", window, 1, "[W]");
  MIMO_CHECK(window.size(0) >= 1 && window.size(0) <= n_fft, op, ": window must have 1 to n_fft = ", n_fft,
             " samples, got ", describe(window));
  MIMO_CHECK(hop >= 1 && hop <= INT32_MAX, op, ": hop must be 1 to ", INT32_MAX, ", got ", hop);
  const bool center = padding == "center";
  MIMO_CHECK(center || padding == "same", op, ": padding must be \"center\" or \"same\", got \"", padding, "\"");
  MIMO_CHECK(!center || length > 0, op, ": wave must have at least one sample for padding \"center\", got length ",
             length);
  return make_framing(length, window.size(0), n_fft, hop, center);
}

// Checks what istft and vocoder_head add frames up with; window [n_fft].
inline void check_overlap_add(const char* op, const Tensor& window, int64_t n_fft, int64_t hop) {
  check_dim(op, "window", window, 1, "[n_fft]");
  MIMO_CHECK(window.size(0) == n_fft, op, ": window must have n_fft = ", n_fft, " samples, got ", describe(window));
  MIMO_CHECK(hop >= 1 && hop <= n_fft, op, ": hop must be 1 to n_fft = ", n_fft, ", got ", hop);
}

}  // namespace mimo
