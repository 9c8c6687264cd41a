// Overlap-add of packed sequences with the "same" padding's trim and envelope, and the way back, for istft,
// vocoder_head and their gradients.
//
// Rows (frames) and samples of all sequences are numbered through: row t's frame lies at t * hop - left in the output,
// whichever sequence it is in, and touches its own sequence's samples only. So runs of samples may span sequences, and
// the grid needs no knowledge of where they end: cu_seqlens is read by the kernels alone.
#pragma once
#include "cuda/overlap_add.cuh"
#include "mimo/vocoder_head.h"

namespace mimo::cuda {

struct SequenceFrames {
  PackedSequences sequences;
  int64_t rows;  // of all sequences
  int n_fft, hop, left;

  SequenceFrames(const PackedSequences& s, int64_t all_rows, int n, int h)
      : sequences(s), rows(all_rows), n_fft(n), hop(h), left((n - h) / 2) {}

  int64_t samples() const { return rows * hop; }
  int64_t blocks(int run_length) const { return (samples() + run_length - 1) / run_length; }

  // The sequence that holds a row.
  __device__ __forceinline__ int64_t find(int64_t row) const {
    int64_t low = 0, high = sequences.count;  // bound(low) <= row < bound(high)
    while (high - low > 1) {
      const int64_t middle = low + (high - low) / 2;
      if (sequences.bound(middle) <= row) {
        low = middle;
      } else {
        high = middle;
      }
    }
    return low;
  }

  // The contract of PackedSequences; one block is enough.
  __device__ __forceinline__ void check_bounds() const {
    if (blockIdx.x != 0) return;
    MIMO_DEVICE_CHECK(sequences.count > 0 && sequences.bound(0) == 0 && sequences.bound(sequences.count) == rows);
    for (int64_t b = block_thread(); b < sequences.count; b += block_threads()) {
      MIMO_DEVICE_CHECK(sequences.bound(b) <= sequences.bound(b + 1));
    }
  }

  __device__ __forceinline__ Run run(int64_t block, int run_length) const {
    const int64_t begin = block * run_length;
    return run_of(begin, int(min(int64_t(run_length), rows * hop - begin)), rows, n_fft, hop, left);
  }
  __device__ __forceinline__ Reach reach(int64_t frame, const Run& run) const {
    const int64_t b = find(frame), start = frame * hop - left - run.begin;
    return reach_of(start, n_fft, sequences.bound(b) * hop - run.begin, sequences.bound(b + 1) * hop - run.begin,
                    run.length);
  }

  // body(i, envelope at sample begin + i) for this thread's i of 0 .. length - 1. The envelope is the overlap-added
  // squared window of the sequence that holds the sample.
  template <class T, class Body>
  __device__ __forceinline__ void for_each_sample(const T* window, int64_t begin, int length, Body body) const {
    const int64_t base = (begin + left) / hop;         // the last row that may reach sample `begin`
    const int phase = int(begin + left - base * hop);  // where in its frame
    int64_t b = find((begin + min(block_thread(), length - 1)) / hop);
    for (int i = block_thread(); i < length; i += block_threads()) {
      while (begin + i >= sequences.bound(b + 1) * hop) ++b;
      const int64_t first = sequences.bound(b), last = sequences.bound(b + 1);
      int64_t row = base + (phase + i) / hop;
      T envelope = 0;
      for (int j = (phase + i) % hop; j < n_fft; j += hop, --row) {
        if (row >= first && row < last) envelope += window[j] * window[j];
      }
      body(i, envelope);
    }
  }

  template <class T>
  __device__ __forceinline__ void finish(const Run& run, const T* sum, const T* window, T* out) const {
    check_bounds();
    for_each_sample(window, run.begin, run.length, [&](int i, T envelope) { out[run.out + i] = sum[i] / envelope; });
  }
};

// --- the way back: the wave's gradient over the envelope, then cut into frames ---------------------------------------

inline constexpr int kDivideThreads = 256, kDivideSamples = 2048;  // of a block

template <class T>
__global__ void divide_by_envelope_kernel(SequenceFrames frames, const T* window, const T* grad, T* out) {
  frames.check_bounds();
  const int64_t begin = int64_t(blockIdx.x) * kDivideSamples;
  const int length = int(min(int64_t(kDivideSamples), frames.rows * frames.hop - begin));
  frames.for_each_sample(window, begin, length,
                         [&](int i, T envelope) { out[begin + i] = grad[begin + i] / envelope; });
}

template <class T>
LaunchError launch_divide_by_envelope(const SequenceFrames& frames, const void* window, const void* grad, T* out,
                                      cudaStream_t stream) {
  const int64_t blocks = (frames.samples() + kDivideSamples - 1) / kDivideSamples;
  MIMO_LAUNCH(unsigned(blocks), kDivideThreads, 0, stream, divide_by_envelope_kernel<T>)
  (frames, static_cast<const T*>(window), static_cast<const T*>(grad), out);
  return MIMO_LAUNCH_ERROR();
}

// A row's frame of `wave`, windowed, zero outside the row's sequence.
template <class T>
struct SequenceReader {
  const T* wave;
  const T* window;
  int64_t start, begin, end;  // of the frame, and of the sequence's samples

  __device__ __forceinline__ SequenceReader(const SequenceFrames& frames, const T* samples, const T* values,
                                            int64_t row)
      : wave(samples), window(values), start(row * frames.hop - frames.left) {
    const int64_t b = frames.find(row);
    begin = frames.sequences.bound(b) * frames.hop;
    end = frames.sequences.bound(b + 1) * frames.hop;
  }
  __device__ __forceinline__ T operator()(int i) const {
    const int64_t at = start + i;
    return at >= begin && at < end ? wave[at] * window[i] : T(0);
  }
};

}  // namespace mimo::cuda
