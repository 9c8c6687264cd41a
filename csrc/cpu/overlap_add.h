// Overlap-add on the CPU, without atomics and with the same order of additions for any number of threads.
//
// The output is cut into tiles; a thread owns a tile and computes every frame that reaches into it, so frames at a
// border are computed twice (at most 2 n_fft / hop per tile). Within a tile frames are added in ascending order.
#pragma once
#include "cpu/frames.h"
#include "mimo/stft.h"
#include "mimo/vocoder_head.h"

namespace mimo::cpu::MIMO_ISA {

// Output samples [low, high) and the frames [first, last) that reach into them. Frame t starts at t * hop - left.
struct Tile {
  int64_t low, high, first, last;
};

// Tile `index` of `count` over `frames` frames whose output is [0, length).
inline Tile make_tile(int64_t index, int64_t count, int64_t frames, int64_t length, int n_fft, int hop, int left) {
  Tile t;
  t.low = index == 0 ? 0 : frames * index / count * hop;
  t.high = index == count - 1 ? length : frames * (index + 1) / count * hop;
  // The outermost tiles also take the frames that lie in the padding.
  t.first = index == 0 ? 0 : larger(0, (t.low + left - n_fft) / hop + 1);
  t.last = index == count - 1 ? frames : smaller(frames, (t.high + left + hop - 1) / hop);
  return t;
}

// How many tiles: some per thread over all signals, each long enough that the padding of a signal's end lies in one.
template <class T>
inline int64_t tiles_per_signal(int64_t signals, int64_t frames, int n_fft, int hop) {
  const int64_t least = larger(n_fft / hop + 2, 3 * kLanes<T>);
  const int64_t wanted = (thread_count() + signals - 1) / signals;
  return larger(1, smaller(wanted, frames / least));
}

// Adds row[j] * window[j] to out[start + j] where that is in [low, high).
template <class T>
inline void add_frame(const T* __restrict row, const T* __restrict window, int n_fft, int64_t start, int64_t low,
                      int64_t high, T* __restrict out) {
  const int64_t begin = larger(0, low - start), end = smaller(n_fft, high - start);
  T* __restrict target = out + start;
  for (int64_t j = begin; j < end; ++j) target[j] += row[j] * window[j];
}

// The adjoint of analyze(): for signal b, out[b] = sum of the frames' gradients, windowed and folded back at the ends.
// synthesize(scratch, begin, end, window, rows) makes the unwindowed gradients of frames begin .. end (of all B * T).
template <class T, class Synthesize>
inline void add_frames_reflected(const Framing& f, int64_t batch, const T* window, T* out, Synthesize synthesize) {
  constexpr int L = kLanes<T>;
  if (batch == 0) return;
  const int64_t tiles = tiles_per_signal<T>(batch, f.frames, f.n_fft, f.hop);
  parallel_for(batch * tiles, 1, [&](int64_t first, int64_t last) {
    FrameScratch<T> scratch(f.n_fft);
    for (int64_t i = first; i < last; ++i) {
      const int64_t b = i / tiles, index = i % tiles;
      const Tile tile = make_tile(index, tiles, f.frames, f.length, f.n_fft, f.hop, f.left);
      T* signal = out + b * f.length;
      for (int64_t s = tile.low; s < tile.high; ++s) signal[s] = 0;
      for (int64_t t = tile.first; t < tile.last; t += L) {
        const int64_t end = smaller(t + L, tile.last);
        const T* rows = synthesize(scratch, b * f.frames + t, b * f.frames + end);
        for (int64_t u = t; u < end; ++u, rows += f.n_fft) {
          const int64_t start = u * f.hop - f.left;
          add_frame(rows, window, f.n_fft, start, tile.low, tile.high, signal);
          if (index == 0) {
            for (int64_t j = 0; j < smaller(f.n_fft, -start); ++j) {
              signal[reflect(start + j, f.length)] += rows[j] * window[j];
            }
          }
          if (index == tiles - 1) {
            for (int64_t j = larger(0, f.length - start); j < f.n_fft; ++j) {
              signal[reflect(start + j, f.length)] += rows[j] * window[j];
            }
          }
        }
      }
    }
  });
}

// Inverse transform of the bins' slots in `bins` (one of the scratch buffers): rows [end - begin][n_fft] in
// scratch.frame, n_fft times the inverse, odd samples negated.
template <class T>
inline const T* synthesize_rows(FrameScratch<T>& s, T* bins, int64_t count) {
  constexpr int L = kLanes<T>;
  const T* samples = irfft(s.plan, bins, s.other(bins));
  T* rows[L];
  for (int i = 0; i < L; ++i) rows[i] = s.frame.get() + int64_t(i) * s.n_fft;
  write_columns(rows, int(count), s.n_fft, [&](int j) { return load(samples + int64_t(j) * L); });
  return s.frame.get();
}

// Packed sequences of frames, each becoming hop samples: what istft and vocoder_head share. Frame g covers samples
// g * hop - left .. + n_fft of the packed signal, as far as they belong to its sequence.
template <class T>
class Packed {
 public:
  Packed(const PackedSequences& sequences, int64_t frames, const void* window, int n_fft, int hop)
      : sequences_(sequences),
        frames_(frames),
        window_(static_cast<const T*>(window)),
        n_fft_(n_fft),
        hop_(hop),
        left_((n_fft - hop) / 2),
        inverse_(hop) {
    for (int r = 0; r < hop; ++r) {
      double envelope = 0;
      for (int j = (r + left_) % hop; j < n_fft; j += hop) envelope += double(window_[j]) * window_[j];
      inverse_[r] = T(1 / envelope);
    }
  }

  int left() const { return left_; }

  // The sequence that row g belongs to; `b` is a guess, not after it.
  int64_t find(int64_t g, int64_t b) const {
    while (sequences_.bound(b + 1) <= g) ++b;
    return b;
  }
  int64_t begin(int64_t b) const { return sequences_.bound(b); }
  int64_t end(int64_t b) const { return sequences_.bound(b + 1); }

  // to[s] = from[s] / envelope for samples low .. high of the packed signal (both multiples of hop).
  void divide(const T* from, T* to, int64_t low, int64_t high) const {
    for (int64_t b = find(low / hop_, 0); low < high; ++b) {
      const int64_t origin = begin(b) * hop_, count = end(b) - begin(b), stop = smaller(high, end(b) * hop_);
      for (; low < stop; low += hop_) {
        const int64_t s = low - origin;
        if (s + left_ - n_fft_ + hop_ >= 0 && s + left_ + hop_ <= count * hop_) {
          for (int r = 0; r < hop_; ++r) to[low + r] = from[low + r] * inverse_[r];
        } else {
          for (int r = 0; r < hop_; ++r) to[low + r] = from[low + r] / edge_envelope(s + r, count);
        }
      }
    }
  }

 private:
  // The frames of a sequence of `count` that cover its sample s, when some are missing.
  T edge_envelope(int64_t s, int64_t count) const {
    double envelope = 0;
    for (int64_t j = (s + left_) % hop_; j < n_fft_; j += hop_) {
      const int64_t g = (s + left_ - j) / hop_;
      if (s + left_ >= j && g < count) envelope += double(window_[j]) * window_[j];
    }
    return T(envelope);
  }

  const PackedSequences& sequences_;
  const int64_t frames_;
  const T* window_;
  const int n_fft_, hop_, left_;
  Scratch<T> inverse_;  // 1 / envelope inside a sequence, [hop]
};

// Overlap-add of packed sequences: out [T * hop]. fill(scratch, begin, end) writes the bins of frames begin .. end to
// scratch.a.
template <class T, class Fill>
inline void add_frames_packed(const PackedSequences& sequences, int64_t frames, const void* window, int n_fft, int hop,
                              T* out, Fill fill) {
  constexpr int L = kLanes<T>;
  if (frames == 0) return;
  const Packed<T> packed(sequences, frames, window, n_fft, hop);
  Scratch<T> signed_window(n_fft);
  place_window(window, n_fft, 0, n_fft, 1.0 / n_fft, true, signed_window.get());
  const int64_t tiles = tiles_per_signal<T>(1, frames, n_fft, hop);
  parallel_for(tiles, 1, [&](int64_t first, int64_t last) {
    FrameScratch<T> scratch(n_fft);
    for (int64_t i = first; i < last; ++i) {
      const Tile tile = make_tile(i, tiles, frames, frames * hop, n_fft, hop, packed.left());
      for (int64_t s = tile.low; s < tile.high; ++s) out[s] = 0;
      int64_t b = 0;
      for (int64_t t = tile.first; t < tile.last; t += L) {
        const int64_t end = smaller(t + L, tile.last);
        fill(scratch, t, end);
        const T* rows = synthesize_rows(scratch, scratch.a.get(), end - t);
        for (int64_t g = t; g < end; ++g, rows += n_fft) {
          b = packed.find(g, b);
          add_frame(rows, signed_window.get(), n_fft, g * hop - packed.left(), larger(tile.low, packed.begin(b) * hop),
                    smaller(tile.high, packed.end(b) * hop), out);
        }
      }
      packed.divide(out, out, tile.low, tile.high);
    }
  });
}

// The adjoint of add_frames_packed: take(bins, begin, end) gets, per group of frames, the transform of the windowed
// gradient. Bins 1 .. n_fft / 2 - 1 still lack the factor 2 of a bin that stands for two.
template <class T, class Take>
inline void analyze_packed(const PackedSequences& sequences, int64_t frames, const void* window, int n_fft, int hop,
                           const void* grad, Take take) {
  constexpr int L = kLanes<T>;
  if (frames == 0) return;
  const Packed<T> packed(sequences, frames, window, n_fft, hop);
  Scratch<T> scaled_window(n_fft), divided(frames * hop);
  place_window(window, n_fft, 0, n_fft, 1.0 / n_fft, false, scaled_window.get());
  parallel_for(frames, 64, [&](int64_t first, int64_t last) {
    packed.divide(static_cast<const T*>(grad), divided.get(), first * hop, last * hop);
  });
  for_each_group<T>(frames, n_fft, [&](FrameScratch<T>& s, int64_t begin, int64_t end) {
    const T* rows[L];
    int64_t b = 0;
    for (int i = 0; i < L; ++i) {
      const int64_t g = smaller(begin + i, end - 1), start = g * hop - packed.left();
      b = packed.find(g, b);
      const int64_t low = packed.begin(b) * hop, high = packed.end(b) * hop;
      rows[i] = divided.get() + start;
      if (start < low || start + n_fft > high) {
        T* copy = s.frame.get() + int64_t(i) * n_fft;
        for (int j = 0; j < n_fft; ++j) copy[j] = start + j >= low && start + j < high ? divided[start + j] : T(0);
        rows[i] = copy;
      }
    }
    T* const a = s.a.get();
    read_columns(rows, n_fft, [&](int j, Vec<T> v) { store<T>(a + int64_t(j) * L, v * scaled_window[j]); });
    take(s, rfft(s.plan, a, s.b.get()), begin, end);
  });
}

}  // namespace mimo::cpu::MIMO_ISA
