// log_mel on the CPU.
//
// One pass per group of kLanes frames, one frame per vector lane, so that nothing but the wave is read and nothing but
// the result is written: cut, window, transform (cpu/fft.h), magnitude, mel filters, logarithm, transposition into
// rows. A mel filter is a few neighbouring bins out of n_fft / 2 + 1; which, is found in the matrix once per call, and
// the non-zero weights are packed column by column. (Any matrix works: a dense one is only slower.)
//
// The backward recomputes magnitudes and mel values, walks the filters in reverse, and adds the frames' gradients up by
// tiles of the signal (cpu/overlap_add.h).
#include "mimo/log_mel.h"

#include <cmath>

#include "cpu/overlap_add.h"
#include "cpu/vector_math.h"

namespace mimo::cpu::MIMO_ISA {
namespace {

// The filters' non-zero parts: filter c weighs bins first[c] .. last[c] with weights[begin[c]] onwards.
template <class T>
struct Filters {
  const int count;
  Scratch<int32_t> first, last;
  Scratch<int64_t> begin;
  Scratch<T> weights;

  Filters(const void* matrix, int bins, int filters)
      : count(filters), first(filters), last(filters), begin(filters), weights(int64_t(bins) * filters) {
    const T* m = static_cast<const T*>(matrix);
    for (int c = 0; c < filters; ++c) first[c] = bins, last[c] = 0;
    for (int k = 0; k < bins; ++k) {
      const T* row = m + int64_t(k) * filters;
      for (int c = 0; c < filters; ++c) {
        first[c] = row[c] != 0 && k < first[c] ? k : first[c];
        last[c] = row[c] != 0 ? k + 1 : last[c];
      }
    }
    int64_t next = 0;
    for (int c = 0; c < filters; ++c) {
      begin[c] = next;
      for (int k = first[c]; k < last[c]; ++k) weights[next++] = m[int64_t(k) * filters + c];
    }
  }
};

template <class T>
MIMO_INLINE Vec<T> root(Vec<T> v) {
  alignas(Vec<T>) T lanes[kLanes<T>];
  store<T>(lanes, v);
  for (int i = 0; i < kLanes<T>; ++i) lanes[i] = std::sqrt(lanes[i]);
  return load(lanes);
}

// Magnitudes of the bins, [n_fft / 2 + 1] slots.
template <class T>
MIMO_INLINE void magnitudes(const T* bins, int count, T* out) {
  for (int k = 0; k < count; ++k) {
    const Complex<T> z = load_point(bins, k);
    store<T>(out + int64_t(k) * kLanes<T>, root<T>(z.re * z.re + z.im * z.im));
  }
}

template <class T>
MIMO_INLINE Vec<T> mel_value(const Filters<T>& filters, int c, const T* magnitude) {
  Vec<T> sum{};
  const T* weight = filters.weights.get() + filters.begin[c];
  for (int k = filters.first[c]; k < filters.last[c]; ++k) {
    sum += load(magnitude + int64_t(k) * kLanes<T>) * *weight++;
  }
  return sum;
}

template <class T>
void forward(const LogMelParams& p) {
  constexpr int L = kLanes<T>;
  const Framing& f = p.framing;
  const int bins = f.n_fft / 2 + 1;
  const Filters<T> filters(p.filterbank, bins, p.n_mels);
  Scratch<T> window(f.n_fft);
  place_window(p.window, f.window_length, f.window_left, f.n_fft, 1, false, window.get());
  const T floor = T(p.floor);
  for_each_group<T>(p.batch * f.frames, f.n_fft, [&](FrameScratch<T>& s, int64_t begin, int64_t end) {
    T* const spectrum = analyze(s, f, p.wave, window.get(), begin, end);
    T* const magnitude = s.other(spectrum);
    magnitudes(spectrum, bins, magnitude);
    T* rows[L];
    frame_rows(static_cast<T*>(p.out), p.n_mels, begin, end, rows);
    write_columns(rows, int(end - begin), p.n_mels, [&](int c) {
      const Vec<T> mel = mel_value(filters, c, magnitude);
      const Vec<T> clamped = mel < floor ? broadcast(floor) : mel;
      return clamped < T(INFINITY) ? log(clamped) : clamped;  // NaN and infinity pass through
    });
  });
}

template <class T>
void backward(const LogMelParams& p) {
  constexpr int L = kLanes<T>;
  const Framing& f = p.framing;
  const int bins = f.n_fft / 2 + 1;
  const Filters<T> filters(p.filterbank, bins, p.n_mels);
  Scratch<T> window(f.n_fft), adjoint_window(f.n_fft);
  place_window(p.window, f.window_length, f.window_left, f.n_fft, 1, false, window.get());
  place_window(p.window, f.window_length, f.window_left, f.n_fft, 0.5, true, adjoint_window.get());
  const T floor = T(p.floor);
  add_frames_reflected(f, p.batch, adjoint_window.get(), static_cast<T*>(p.out),
                       [&](FrameScratch<T>& s, int64_t begin, int64_t end) {
                         T* const spectrum = analyze(s, f, p.wave, window.get(), begin, end);
                         T* const magnitude = s.other(spectrum);
                         magnitudes(spectrum, bins, magnitude);
                         T* const slope = s.frame.get();  // gradient of the magnitudes
                         for (int64_t i = 0; i < int64_t(bins) * L; ++i) slope[i] = 0;
                         const T* rows[L];
                         frame_rows(static_cast<const T*>(p.grad), p.n_mels, begin, end, rows);
                         read_columns(rows, p.n_mels, [&](int c, Vec<T> grad) {
                           const Vec<T> mel = mel_value(filters, c, magnitude);
                           const Vec<T> through = mel >= floor ? grad / mel : Vec<T>{};
                           const T* weight = filters.weights.get() + filters.begin[c];
                           for (int k = filters.first[c]; k < filters.last[c]; ++k) {
                             store<T>(slope + int64_t(k) * L, load(slope + int64_t(k) * L) + through * *weight++);
                           }
                         });
                         for (int k = 0; k < bins; ++k) {
                           const Vec<T> size = load(magnitude + int64_t(k) * L);
                           Vec<T> factor = load(slope + int64_t(k) * L) / size;
                           factor = size == 0 ? Vec<T>{} : factor;
                           if (k == 0 || k == bins - 1) factor += factor;
                           const Complex<T> z = load_point(spectrum, k);
                           store_point<T>(spectrum, k, {z.re * factor, z.im * factor});
                         }
                         return synthesize_rows(s, spectrum, end - begin);
                       });
}

}  // namespace

void log_mel(const LogMelParams& p) { p.dtype == DType::f64 ? forward<double>(p) : forward<float>(p); }
void log_mel_backward(const LogMelParams& p) { p.dtype == DType::f64 ? backward<double>(p) : backward<float>(p); }

}  // namespace mimo::cpu::MIMO_ISA
