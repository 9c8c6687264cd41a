// Between signals in memory (one frame after another) and the FFT's slots (one frame per lane, cpu/fft.h):
// transposition in blocks of kLanes x kLanes, cutting a signal into frames, and the scratch of a thread.
#pragma once
#include "cpu/fft.h"
#include "cpu/isa.h"
#include "cpu/transpose.h"
#include "mimo/stft.h"

namespace mimo::cpu::MIMO_ISA {

MIMO_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
MIMO_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Row pointers of frames begin .. end in a tensor of `columns` numbers per frame; lanes past the end repeat the last.
template <class T, int kRows>
MIMO_INLINE void frame_rows(T* base, int64_t columns, int64_t begin, int64_t end, T* (&rows)[kRows]) {
  for (int i = 0; i < kRows; ++i) rows[i] = base + smaller(begin + i, end - 1) * columns;
}

// take(c, lanes) for every column c of kLanes rows: lanes[i] = rows[i][c].
template <class T, class Take>
MIMO_INLINE void read_columns(const T* const* rows, int columns, Take take) {
  constexpr int L = kLanes<T>;
  int c = 0;
  for (; c + L <= columns; c += L) {
    Vec<T> v[L];
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) v[i] = load(rows[i] + c);
    transpose_square<T>(v);
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) take(c + i, v[i]);
  }
  for (; c < columns; ++c) {
    Vec<T> v;
    for (int i = 0; i < L; ++i) v[i] = rows[i][c];
    take(c, v);
  }
}

// The reverse: rows[i][c] = give(c)[i] for the first `count` rows.
template <class T, class Give>
MIMO_INLINE void write_columns(T* const* rows, int count, int columns, Give give) {
  constexpr int L = kLanes<T>;
  int c = 0;
  for (; c + L <= columns; c += L) {
    Vec<T> v[L];
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) v[i] = give(c + i);
    transpose_square<T>(v);
    if (count == L) {
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) store<T>(rows[i] + c, v[i]);
    } else {
      for (int i = 0; i < count; ++i) store<T>(rows[i] + c, v[i]);
    }
  }
  for (; c < columns; ++c) {
    const Vec<T> v = give(c);
    for (int i = 0; i < count; ++i) rows[i][c] = v[i];
  }
}

// What a thread needs to transform kLanes frames.
template <class T>
struct FrameScratch {
  const FftPlan<T>& plan;
  const int n_fft;
  Scratch<T> a, b;   // [n_fft + 2] slots each
  Scratch<T> frame;  // [kLanes][n_fft]

  explicit FrameScratch(int size)
      : plan(fft_plan(size, T())),
        n_fft(size),
        a(int64_t(size + 2) * kLanes<T>),
        b(int64_t(size + 2) * kLanes<T>),
        frame(int64_t(size) * kLanes<T>) {}

  T* other(const T* buffer) const { return buffer == a.get() ? b.get() : a.get(); }
};

// The window at its place in a frame, times `factor`; with `alternate`, odd samples change sign (see irfft).
template <class T>
inline void place_window(const void* window, int length, int left, int n_fft, double factor, bool alternate, T* out) {
  for (int j = 0; j < n_fft; ++j) {
    const int i = j - left;
    const T value = i >= 0 && i < length ? T(factor * static_cast<const T*>(window)[i]) : T(0);
    out[j] = alternate && j % 2 ? -value : value;
  }
}

// Windows frames begin .. begin + kLanes - 1 of all B * T (those past `end` repeat the last) and transforms them;
// returns the bins' slots.
template <class T>
inline T* analyze(FrameScratch<T>& s, const Framing& f, const void* wave, const T* window, int64_t begin, int64_t end) {
  constexpr int L = kLanes<T>;
  const T* rows[L];
  for (int i = 0; i < L; ++i) {
    if (begin + i >= end) {
      rows[i] = rows[i - 1];
      continue;
    }
    const int64_t g = begin + i;
    const T* signal = static_cast<const T*>(wave) + g / f.frames * f.length;
    const int64_t start = g % f.frames * f.hop - f.left;
    rows[i] = signal + start;
    if (start < 0 || start + f.n_fft > f.length) {
      T* copy = s.frame.get() + int64_t(i) * f.n_fft;
      for (int j = 0; j < f.n_fft; ++j) copy[j] = signal[reflect(start + j, f.length)];
      rows[i] = copy;
    }
  }
  T* const a = s.a.get();
  read_columns(rows, f.n_fft, [&](int j, Vec<T> v) { store<T>(a + int64_t(j) * L, v * window[j]); });
  return rfft(s.plan, a, s.b.get());
}

// Frames per parallel piece: enough work (tens of microseconds) to be worth a thread.
inline constexpr int64_t kGroupGrain = 2;

// body(scratch, begin, end) for groups of kLanes frames out of `frames`, on all threads.
template <class T, class Body>
inline void for_each_group(int64_t frames, int n_fft, Body body) {
  constexpr int L = kLanes<T>;
  parallel_for((frames + L - 1) / L, kGroupGrain, [&](int64_t first, int64_t last) {
    FrameScratch<T> scratch(n_fft);
    for (int64_t group = first; group < last; ++group) {
      const int64_t begin = group * L;
      body(scratch, begin, smaller(begin + L, frames));
    }
  });
}

}  // namespace mimo::cpu::MIMO_ISA
