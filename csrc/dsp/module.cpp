// mimo_audio_native._dsp: the CPU kernels of stft and log_mel on NumPy arrays, for data workers that do without torch.
// float32, one signal per call, on the calling thread, with the interpreter's lock released.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <complex>
#include <limits>
#include <string>
#include <vector>

#include "common/cpu_dispatch.h"
#include "mimo/log_mel.h"
#include "mimo/stft.h"

namespace nb = nanobind;

namespace mimo {
namespace {

using AnyArray = nb::ndarray<nb::ro, nb::device::cpu>;

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::string text;
  ((text += parts), ...);
  throw nb::value_error(text.c_str());
}

std::string describe(const AnyArray& a) {
  const auto type = a.dtype();
  const char* kinds[] = {"int", "uint", "float"};
  std::string text = type.code < 3 ? kinds[type.code] + std::to_string(type.bits) : "another dtype";
  for (size_t i = 0; i < a.ndim(); ++i) text += (i ? ", " : " [") + std::to_string(a.shape(i));
  return text + (a.ndim() ? "]" : " []");
}

// A float32 array with `ndim` axes, copied if it is strided.
class Dense {
 public:
  Dense(const char* op, const char* name, const AnyArray& a, size_t ndim, const char* meaning) {
    if (a.dtype() != nb::dtype<float>() || a.ndim() != ndim) {
      fail(op, ": ", name, " must be float32 ", meaning, ", got ", describe(a));
    }
    rows_ = int64_t(a.shape(0));
    columns_ = ndim == 2 ? int64_t(a.shape(1)) : 1;
    data_ = static_cast<const float*>(a.data());
    const int64_t row_step = a.stride(0), column_step = ndim == 2 ? a.stride(1) : 1;
    if (row_step == columns_ && column_step == 1) return;
    for (int64_t i = 0; i < rows_; ++i) {
      for (int64_t j = 0; j < columns_; ++j) copy_.push_back(data_[i * row_step + j * column_step]);
    }
    data_ = copy_.data();
  }

  const float* data() const { return data_; }
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }

 private:
  const float* data_;
  int64_t rows_, columns_;
  std::vector<float> copy_;
};

Framing framing_of(const char* op, const Dense& wave, const Dense& window, int64_t n_fft, int64_t hop,
                   const std::string& padding) {
  if (!fft_size_supported(n_fft)) {
    fail(op, ": n_fft must be an even number from 2 to ", std::to_string(kMaxFft),
         " without prime factors other than 2, 3 and 5, got ", std::to_string(n_fft));
  }
  if (window.rows() < 1 || window.rows() > n_fft) {
    fail(op, ": window must have 1 to n_fft = ", std::to_string(n_fft), " samples, got ",
         std::to_string(window.rows()));
  }
  if (hop < 1 || hop > INT32_MAX) {
    fail(op, ": hop must be 1 to ", std::to_string(INT32_MAX), ", got ", std::to_string(hop));
  }
  if (padding != "center" && padding != "same") {
    fail(op, ": padding must be \"center\" or \"same\", got \"", padding, "\"");
  }
  if (padding == "center" && wave.rows() == 0) {
    fail(op, ": wave must have at least one sample for padding \"center\", got none");
  }
  return make_framing(wave.rows(), window.rows(), n_fft, hop, padding == "center");
}

// A new NumPy array that owns its memory.
template <class T>
using Result = nb::ndarray<nb::numpy, T, nb::ndim<2>>;
template <class T>
Result<T> allocate(int64_t rows, int64_t columns) {
  T* data = new T[size_t(rows * columns)];
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return Result<T>(data, {size_t(rows), size_t(columns)}, owner);
}

Result<std::complex<float>> stft(const AnyArray& wave, const AnyArray& window, int64_t n_fft, int64_t hop,
                                 const std::string& padding) {
  const char* op = "stft";
  const Dense signal(op, "wave", wave, 1, "[N]"), taps(op, "window", window, 1, "[W]");
  StftParams p{};
  p.framing = framing_of(op, signal, taps, n_fft, hop, padding);
  auto out = allocate<std::complex<float>>(p.framing.frames, n_fft / 2 + 1);
  p.in = signal.data();
  p.window = taps.data();
  p.out = out.data();
  p.batch = 1;
  p.dtype = DType::f32;
  const nb::gil_scoped_release released;
  MIMO_CPU_SELECT(stft)(p);
  return out;
}

Result<float> log_mel(const AnyArray& wave, const AnyArray& window, const AnyArray& filterbank, int64_t hop,
                      double floor, const std::string& padding) {
  const char* op = "log_mel";
  const Dense signal(op, "wave", wave, 1, "[N]"), taps(op, "window", window, 1, "[W]");
  const Dense filters(op, "filterbank", filterbank, 2, "[n_fft / 2 + 1, n_mels]");
  if (filters.columns() < 1 || filters.columns() > INT32_MAX) fail(op, ": filterbank must have at least one column");
  constexpr float least = std::numeric_limits<float>::min(), most = std::numeric_limits<float>::max();
  if (!(floor >= least && floor <= most)) {
    fail(op, ": floor must be a normal positive float32 number, got ", std::to_string(floor));
  }
  LogMelParams p{};
  p.framing = framing_of(op, signal, taps, 2 * (filters.rows() - 1), hop, padding);
  auto out = allocate<float>(p.framing.frames, filters.columns());
  p.wave = signal.data();
  p.window = taps.data();
  p.filterbank = filters.data();
  p.out = out.data();
  p.batch = 1;
  p.floor = floor;
  p.n_mels = int32_t(filters.columns());
  p.dtype = DType::f32;
  const nb::gil_scoped_release released;
  MIMO_CPU_SELECT(log_mel)(p);
  return out;
}

}  // namespace
}  // namespace mimo

NB_MODULE(_dsp, m) {
  using namespace nb::literals;
  m.def("stft", &mimo::stft, "wave"_a, "window"_a, "n_fft"_a, "hop"_a, "padding"_a = "center",
        "wave [N], window [W] -> complex64 [T, n_fft // 2 + 1]; as mimo_audio_native.stft.");
  m.def(
      "log_mel", &mimo::log_mel, "wave"_a, "window"_a, "filterbank"_a, "hop"_a, "floor"_a = 1e-7,
      "padding"_a = "center",
      "wave [N], window [W], filterbank [n_fft / 2 + 1, n_mels] -> float32 [T, n_mels]; as mimo_audio_native.log_mel.");
}
