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
  uint64_t reciprocal;  // ceil(2^32 / hop): i / hop by multiplication for i hop < 2^32

  SequenceFrames(const PackedSequences& s, int64_t all_rows, int n, int h)
      : sequences(s),
        rows(all_rows),
        n_fft(n),
        hop(h),
        left((n - h) / 2),
        reciprocal(((uint64_t(1) << 32) + unsigned(h) - 1) / unsigned(h)) {}

  int64_t samples() const { return rows * hop; }
  __device__ __forceinline__ int hop_length() const { return hop; }
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

  // What frames add up to where every row that reaches is there: for the samples that lie `phase` after a row's start.
  template <class T>
  __device__ __forceinline__ T envelope(const T* window, int phase, int64_t row, int64_t first, int64_t last) const {
    T sum = 0;
    for (int j = phase; j < n_fft; j += hop, --row) {
      if (row >= first && row < last) sum += window[j] * window[j];
    }
    return sum;
  }

  // body(i, 1 / envelope at sample begin + i) for this thread's i of 0 .. length - 1. The envelope is the overlap-added
  // squared window of the sequence that holds the sample; `table` is shared memory for `hop` values, those of samples
  // far from a sequence's ends. All threads of a block must take part.
  template <class T, class Body>
  __device__ __forceinline__ void for_each_sample(const T* window, int64_t begin, int length, T* table,
                                                  Body body) const {
    for (int i = block_thread(); i < hop; i += block_threads()) table[i] = 1 / envelope(window, i, 0, -n_fft, 1);
    __syncthreads();
    const int64_t base = (begin + left) / hop;         // the last row that may reach sample `begin`
    const int phase = int(begin + left - base * hop);  // where in its frame
    // Of the sequence that holds a sample: its rows, its last sample's next, rows after `base` whose samples are far
    // from its ends.
    int64_t b = find((begin + min(block_thread(), length - 1)) / hop) - 1, first = 0, last = 0;
    int end = 0, inner = 0, outer = 0;
    for (int i = block_thread(); i < length; i += block_threads()) {
      while (i >= end) {
        first = sequences.bound(++b);
        last = sequences.bound(b + 1);
        end = int(min(last * hop - begin, int64_t(length)));
        inner = int(max(first + (n_fft - 1) / hop - base, int64_t(0)));
        outer = int(min(last - base, int64_t(length)));
      }
      const int row = int((unsigned(phase + i) * reciprocal) >> 32), at = phase + i - row * hop;
      body(i, row >= inner && row < outer ? table[at] : 1 / envelope(window, at, base + row, first, last));
    }
  }

  // `table`: shared memory for `hop` values.
  template <class T>
  __device__ __forceinline__ void finish(const Run& run, const T* sum, const T* window, T* table, T* out) const {
    check_bounds();
    for_each_sample(window, run.begin, run.length, table, [&](int i, T scale) { out[run.out + i] = sum[i] * scale; });
  }
};

// Overlap-adds all rows; Frames derives from SequenceFrames.
template <class Frames>
LaunchError launch_sequences(const Frames& frames, cudaStream_t stream) {
  if (frames.rows == 0) return nullptr;
  return launch_overlap_add(frames, frames.n_fft, frames.samples(), stream);
}

// --- the way back: the wave's gradient over the envelope, then cut into frames ---------------------------------------

inline constexpr int kDivideThreads = 256, kDivideSamples = 2048;  // of a block

template <class T>
__global__ void divide_by_envelope_kernel(SequenceFrames frames, const T* window, const T* grad, T* out) {
  MIMO_DYNAMIC_SHARED(T, table);
  frames.check_bounds();
  const int64_t begin = int64_t(blockIdx.x) * kDivideSamples;
  const int length = int(min(int64_t(kDivideSamples), frames.rows * frames.hop - begin));
  frames.for_each_sample(window, begin, length, table,
                         [&](int i, T scale) { out[begin + i] = grad[begin + i] * scale; });
}

template <class T>
LaunchError launch_divide_by_envelope(const SequenceFrames& frames, const void* window, const void* grad, T* out,
                                      cudaStream_t stream) {
  const int64_t blocks = (frames.samples() + kDivideSamples - 1) / kDivideSamples;
  const int64_t bytes = int64_t(sizeof(T)) * frames.hop;
  MIMO_ALLOW_SHARED(divide_by_envelope_kernel<T>);
  MIMO_LAUNCH(unsigned(blocks), kDivideThreads, bytes, stream, divide_by_envelope_kernel<T>)
  (frames, static_cast<const T*>(window), static_cast<const T*>(grad), out);
  return MIMO_LAUNCH_ERROR();
}

// A row's frame of `wave`, windowed, zero outside the row's sequence.
template <class T>
struct SequenceReader : FrameSource<T> {
  int begin, end;  // of the sequence's samples, from the frame's start

  __device__ __forceinline__ SequenceReader(const SequenceFrames& frames, const T* wave, const T* window, int64_t row)
      : SequenceReader(frames, wave, window, row * frames.hop - frames.left, frames.find(row)) {}
  __device__ __forceinline__ SequenceReader(const SequenceFrames& f, const T* wave, const T* window, int64_t start,
                                            int64_t sequence)
      : SequenceReader(f.n_fft, wave + start, window, f.sequences.bound(sequence) * f.hop - start,
                       f.sequences.bound(sequence + 1) * f.hop - start) {}
  __device__ __forceinline__ SequenceReader(int n_fft, const T* frame, const T* window, int64_t first, int64_t last)
      : FrameSource<T>(frame, window, n_fft, 0, n_fft, first <= 0 && last >= n_fft),
        begin(int(max(first, int64_t(-1)))),
        end(int(min(last, int64_t(n_fft)))) {}

  __device__ __forceinline__ T operator()(int i) const {
    return i >= begin && i < end ? this->samples[i] * this->window[i] : T(0);
  }
};

}  // namespace mimo::cuda
