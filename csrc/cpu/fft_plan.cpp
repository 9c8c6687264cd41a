// Compiled once without vector flags, so that it may use the standard library (cpu/isa.h says why kernels may not).
#include "cpu/fft_plan.h"

#include <cmath>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace mimo::cpu {
namespace {

template <class T>
struct StoredPlan {
  FftPlan<T> plan{};
  std::vector<T> numbers;

  explicit StoredPlan(int n_fft) {
    plan.n_fft = n_fft;
    int left = n_fft / 2;
    for (int radix : {8, 4, 2, 5, 3}) {
      // 16 = 4 * 4 reads and writes as often as 8 * 2, with fewer operations.
      while (left % radix == 0 && !(radix == 8 && left % 16 == 0 && left % 32 != 0)) {
        plan.radix[plan.stages++] = radix;
        left /= radix;
      }
    }
    std::vector<size_t> begin;
    left = n_fft / 2;
    for (int i = 0; i < plan.stages; ++i) {
      begin.push_back(numbers.size());
      const int radix = plan.radix[i];
      for (int p = 0; p < left / radix; ++p) {
        for (int k = 1; k < radix; ++k) append(int64_t(p) * k, left);
      }
      left /= radix;
    }
    const size_t split = numbers.size();
    for (int k = 0; k <= n_fft / 4; ++k) append(k, n_fft);
    for (int i = 0; i < plan.stages; ++i) plan.twiddles[i] = numbers.data() + begin[i];
    plan.split = numbers.data() + split;
  }

  void append(int64_t numerator, int64_t denominator) {
    const double angle = -2 * M_PI * double(numerator) / double(denominator);
    numbers.push_back(T(std::cos(angle)));
    numbers.push_back(T(std::sin(angle)));
  }
};

template <class T>
const FftPlan<T>& cached(int n_fft) {
  static std::mutex mutex;
  static auto* plans =
      new std::map<int, std::unique_ptr<StoredPlan<T>>>();  // never destroyed: threads may outlive main
  const std::lock_guard lock(mutex);
  auto& stored = (*plans)[n_fft];
  if (!stored) stored = std::make_unique<StoredPlan<T>>(n_fft);
  return stored->plan;
}

}  // namespace

const FftPlan<float>& fft_plan(int n_fft, float) { return cached<float>(n_fft); }
const FftPlan<double>& fft_plan(int n_fft, double) { return cached<double>(n_fft); }

}  // namespace mimo::cpu
