// vocoder_head on the CPU.
//
// One pass per group of kLanes frames, one frame per vector lane: rows of log-magnitude and phase are transposed into
// lanes, turned into bins by exp and sincos on vectors, transformed back (cpu/fft.h), and added up in tiles of the
// output, which a thread owns from the first addition to the division by the window's envelope (cpu/overlap_add.h).
// Sequences need no case of their own: frame g of the packed rows starts at sample g * hop - (n_fft - hop) / 2 of the
// packed output, and is cut off where its sequence begins and ends.
//
// The backward is the adjoint of each step in reverse; magnitude and phase are computed again rather than stored.
#include "mimo/vocoder_head.h"

#include "cpu/overlap_add.h"
#include "cpu/vector_math.h"

namespace mimo::cpu::MIMO_ISA {
namespace {

template <class T>
void forward(const VocoderHeadParams& p) {
  constexpr int L = kLanes<T>;
  const int bins = p.n_fft / 2 + 1;
  const T most = T(p.max_magnitude);
  add_frames_packed(p.sequences, p.sequences.rows, p.window, p.n_fft, p.hop, static_cast<T*>(p.out),
                    [&](FrameScratch<T>& s, int64_t begin, int64_t end) {
                      const T *magnitudes[L], *phases[L];
                      frame_rows(static_cast<const T*>(p.x), 2 * bins, begin, end, magnitudes);
                      frame_rows(static_cast<const T*>(p.x) + bins, 2 * bins, begin, end, phases);
                      T* const a = s.a.get();
                      read_columns(magnitudes, bins, [&](int k, Vec<T> v) {
                        const Vec<T> magnitude = exp(v);
                        store<T>(a + int64_t(2 * k) * L, magnitude > most ? broadcast(most) : magnitude);
                      });
                      read_columns(phases, bins, [&](int k, Vec<T> v) {
                        const Vec<T> magnitude = load(a + int64_t(2 * k) * L);
                        Vec<T> sine, cosine;
                        sincos(v, sine, cosine);
                        store_point<T>(a, k, {magnitude * cosine, magnitude * sine});
                      });
                    });
}

template <class T>
void backward(const VocoderHeadParams& p) {
  constexpr int L = kLanes<T>;
  const int bins = p.n_fft / 2 + 1;
  const T most = T(p.max_magnitude);
  analyze_packed<T>(
      p.sequences, p.sequences.rows, p.window, p.n_fft, p.hop, p.grad,
      [&](FrameScratch<T>& s, T* grad, int64_t begin, int64_t end) {
        const T *magnitudes[L], *phases[L];
        frame_rows(static_cast<const T*>(p.x), 2 * bins, begin, end, magnitudes);
        frame_rows(static_cast<const T*>(p.x) + bins, 2 * bins, begin, end, phases);
        T* const other = s.other(grad);
        read_columns(magnitudes, bins, [&](int k, Vec<T> v) { store<T>(other + int64_t(2 * k) * L, exp(v)); });
        read_columns(phases, bins, [&](int k, Vec<T> v) {
          const Complex<T> g = k == 0 || k == bins - 1 ? load_point(grad, k) : scale(load_point(grad, k), T(2));
          const Vec<T> free = load(other + int64_t(2 * k) * L);
          Vec<T> sine, cosine;
          sincos(v, sine, cosine);
          const Vec<T> along = (g.re * cosine + g.im * sine) * free;
          const Vec<T> across = (g.im * cosine - g.re * sine) * (free > most ? broadcast(most) : free);
          store_point<T>(other, k, {free > most ? Vec<T>{} : along, across});
        });
        T *to_magnitudes[L], *to_phases[L];
        frame_rows(static_cast<T*>(p.out), 2 * bins, begin, end, to_magnitudes);
        frame_rows(static_cast<T*>(p.out) + bins, 2 * bins, begin, end, to_phases);
        const int count = int(end - begin);
        write_columns(to_magnitudes, count, bins, [&](int k) { return load_point(other, k).re; });
        write_columns(to_phases, count, bins, [&](int k) { return load_point(other, k).im; });
      });
}

}  // namespace

void vocoder_head(const VocoderHeadParams& p) { p.dtype == DType::f64 ? forward<double>(p) : forward<float>(p); }
void vocoder_head_backward(const VocoderHeadParams& p) {
  p.dtype == DType::f64 ? backward<double>(p) : backward<float>(p);
}

}  // namespace mimo::cpu::MIMO_ISA
