// stft and istft on the CPU.
//
// kLanes frames are transformed together, one per vector lane (cpu/fft.h): they are cut out of the signal, transposed
// into lanes while the window is multiplied in, transformed, and transposed back into rows of bins. Groups of frames go
// to threads; signals that frames are added into go to threads by tiles (cpu/overlap_add.h).
//
// Each backward is the adjoint, by the same two transforms: the gradient of a real sample is the real part of a sum
// over bins 0 .. n_fft / 2 only, which is the inverse transform of bins halved where they stand for two.
#include "mimo/stft.h"

#include "cpu/overlap_add.h"

namespace mimo::cpu::MIMO_ISA {
namespace {

template <class T>
void forward(const StftParams& p) {
  constexpr int L = kLanes<T>;
  const Framing& f = p.framing;
  const int columns = f.n_fft + 2;
  Scratch<T> window(f.n_fft);
  place_window(p.window, f.window_length, f.window_left, f.n_fft, 1, false, window.get());
  for_each_group<T>(p.batch * f.frames, f.n_fft, [&](FrameScratch<T>& s, int64_t begin, int64_t end) {
    const T* bins = analyze(s, f, p.in, window.get(), begin, end);
    T* rows[L];
    frame_rows(static_cast<T*>(p.out), columns, begin, end, rows);
    write_columns(rows, int(end - begin), columns, [&](int c) { return load(bins + int64_t(c) * L); });
  });
}

template <class T>
void backward(const StftParams& p) {
  constexpr int L = kLanes<T>;
  const Framing& f = p.framing;
  const int columns = f.n_fft + 2;
  Scratch<T> window(f.n_fft);
  place_window(p.window, f.window_length, f.window_left, f.n_fft, 0.5, true, window.get());
  add_frames_reflected(
      f, p.batch, window.get(), static_cast<T*>(p.out), [&](FrameScratch<T>& s, int64_t begin, int64_t end) {
        const T* rows[L];
        frame_rows(static_cast<const T*>(p.in), columns, begin, end, rows);
        T* const a = s.a.get();
        read_columns(rows, columns,
                     [&](int c, Vec<T> v) { store<T>(a + int64_t(c) * L, c < 2 || c >= columns - 2 ? v + v : v); });
        return synthesize_rows(s, a, end - begin);
      });
}

template <class T>
void inverse(const IstftParams& p) {
  constexpr int L = kLanes<T>;
  const int columns = p.n_fft + 2;
  const PackedSequences sequences{nullptr, nullptr, p.batch, p.frames};
  add_frames_packed(sequences, p.batch * p.frames, p.window, p.n_fft, p.hop, static_cast<T*>(p.out),
                    [&](FrameScratch<T>& s, int64_t begin, int64_t end) {
                      const T* rows[L];
                      frame_rows(static_cast<const T*>(p.in), columns, begin, end, rows);
                      T* const a = s.a.get();
                      read_columns(rows, columns, [&](int c, Vec<T> v) { store<T>(a + int64_t(c) * L, v); });
                    });
}

template <class T>
void inverse_backward(const IstftParams& p) {
  constexpr int L = kLanes<T>;
  const int columns = p.n_fft + 2;
  const PackedSequences sequences{nullptr, nullptr, p.batch, p.frames};
  analyze_packed<T>(sequences, p.batch * p.frames, p.window, p.n_fft, p.hop, p.in,
                    [&](FrameScratch<T>&, const T* bins, int64_t begin, int64_t end) {
                      T* rows[L];
                      frame_rows(static_cast<T*>(p.out), columns, begin, end, rows);
                      write_columns(rows, int(end - begin), columns, [&](int c) {
                        const Vec<T> v = load(bins + int64_t(c) * L);
                        return c < 2 || c >= columns - 2 ? v : v + v;
                      });
                    });
}

}  // namespace

void stft(const StftParams& p) { p.dtype == DType::f64 ? forward<double>(p) : forward<float>(p); }
void stft_backward(const StftParams& p) { p.dtype == DType::f64 ? backward<double>(p) : backward<float>(p); }
void istft(const IstftParams& p) { p.dtype == DType::f64 ? inverse<double>(p) : inverse<float>(p); }
void istft_backward(const IstftParams& p) {
  p.dtype == DType::f64 ? inverse_backward<double>(p) : inverse_backward<float>(p);
}

}  // namespace mimo::cpu::MIMO_ISA
