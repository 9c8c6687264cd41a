// Frames of a reflect-padded wave and the way back, for stft, log_mel and their gradients (Framing, mimo/stft.h).
//
// Forward: FrameReader reads a frame straight from the wave; only frames at the ends fold their indices.
// Backward: the gradients of all frames are overlap-added in padded coordinates (PaddedLines, a Frames struct of
// overlap_add.cuh), one line of (T - 1) hop + n_fft samples per wave; fold_kernel then sums, for each sample of the
// wave, the padded positions that reflect to it. Both steps gather, so no atomics.
#pragma once
#include "cuda/overlap_add.cuh"
#include "mimo/stft.h"

namespace mimo::cuda {

template <class T>
struct FrameReader : FrameSource<T> {
  const T* wave;  // of the frame's batch item
  int64_t start;  // the frame's first sample, in the wave's coordinates
  int64_t length;

  __device__ __forceinline__ FrameReader(const void* waves, const void* windows, const Framing& f, int64_t frame)
      : FrameReader(f, static_cast<const T*>(waves) + frame / f.frames * f.length, static_cast<const T*>(windows),
                    frame % f.frames * f.hop - f.left) {}
  __device__ __forceinline__ FrameReader(const Framing& f, const T* item, const T* window, int64_t first)
      : FrameSource<T>(item + first, window, f.n_fft, f.window_left, f.window_length,
                       first >= 0 && first + f.n_fft <= f.length),
        wave(item),
        start(first),
        length(f.length) {}

  __device__ __forceinline__ T operator()(int i) const {
    const int w = i - this->window_left;
    return w < 0 || w >= this->window_length ? T(0) : wave[reflect(start + i, length)] * this->window[w];
  }
};

// Rounds of frames that a block does after filling its tables once; short signals rather take more blocks.
inline int64_t fft_rounds(const FftPlan& plan, int64_t frames) {
  return std::clamp<int64_t>(frames / (1024 * plan.teams), 1, 8);
}
inline unsigned fft_grid(const FftPlan& plan, int64_t frames, int64_t rounds) {
  return unsigned((frames + plan.teams * rounds - 1) / (plan.teams * rounds));
}

// body(frame, live) for the frames of this team. A team past the end repeats the last frame, because barriers want
// every thread; then live is false and it should write nothing.
template <class Body>
__device__ __forceinline__ void for_each_frame(const FftPlan& plan, int64_t frames, int rounds, Body body) {
  for (int round = 0; round < rounds; ++round) {
    const int64_t first = (int64_t(blockIdx.x) * rounds + round) * plan.teams;
    if (first >= frames) return;
    const int64_t frame = first + threadIdx.y;
    body(min(frame, frames - 1), frame < frames);
  }
}

// Where the gradients of a Framing's frames lie: line b is batch item b's padded wave.
struct PaddedLines {
  Framing framing;
  int64_t batch;
  int64_t length;  // of a line

  explicit PaddedLines(const Framing& f, int64_t b)
      : framing(f), batch(b), length(f.frames ? (f.frames - 1) * f.hop + f.n_fft : 0) {}

  __device__ __forceinline__ int hop_length() const { return framing.hop; }
  int64_t blocks(int run_length) const { return batch * ((length + run_length - 1) / run_length); }

  // Frames count through all lines.
  __device__ __forceinline__ Run run(int64_t block, int run_length) const {
    const int64_t runs = (length + run_length - 1) / run_length, line = block / runs, begin = block % runs * run_length;
    const int samples = int(min(int64_t(run_length), length - begin));
    Run run = run_of(begin, samples, framing.frames, framing.n_fft, framing.hop, 0);
    run.first += line * framing.frames;
    run.last += line * framing.frames;
    run.out += line * length;
    return run;
  }
  __device__ __forceinline__ Reach reach(int64_t frame, const Run& run) const {
    const int64_t start = frame % framing.frames * framing.hop - run.begin;
    return reach_of(start, framing.n_fft, start, start + framing.n_fft, run.length);
  }
  template <class T>
  __device__ __forceinline__ T window(const T* values, int i) const {
    const int w = i - framing.window_left;
    return w < 0 || w >= framing.window_length ? T(0) : values[w];
  }
  template <class T>
  __device__ __forceinline__ void finish(const Run& run, const T* sum, T* out) const {
    for (int i = block_thread(); i < run.length; i += block_threads()) out[run.out + i] = sum[i];
  }
};

// Overlap-adds all lines; Frames derives from PaddedLines.
template <class Frames>
LaunchError launch_lines(const Frames& frames, cudaStream_t stream) {
  const int64_t samples = frames.batch * frames.length;
  return samples > 0 ? launch_overlap_add(frames, frames.framing.n_fft, samples, stream) : nullptr;
}

inline constexpr int kFoldThreads = 256, kFoldSamples = 1024;  // of a block

template <class T>
__global__ void fold_kernel(PaddedLines lines, const T* padded, T* out) {
  const int64_t length = lines.framing.length, pieces = (length + kFoldSamples - 1) / kFoldSamples;
  const int64_t item = blockIdx.x / pieces, begin = blockIdx.x % pieces * kFoldSamples;
  const T* line = padded + item * lines.length;
  const int64_t left = lines.framing.left;
  // Without reflection, a wave of one sample repeats it: period 1.
  const int64_t period = length > 1 ? 2 * (length - 1) : 1;
  // Sum over the positions index + m * period, m integer, that the line has; position p of the line is p - left here.
  const auto sum_of = [&](int64_t index) {
    while (index - period >= -left) index -= period;
    T sum = 0;
    for (; index < lines.length - left; index += period) {
      if (index >= -left) sum += line[index + left];
    }
    return sum;
  };
  const int64_t end = min(begin + kFoldSamples, length);
  for (int64_t j = begin + threadIdx.x; j < end; j += kFoldThreads) {
    T sum = sum_of(j);
    if (j > 0 && j < length - 1) sum += sum_of(-j);
    out[item * length + j] = sum;
  }
}

template <class T>
LaunchError launch_fold(const PaddedLines& lines, const T* padded, void* out, cudaStream_t stream) {
  const int64_t blocks = lines.batch * ((lines.framing.length + kFoldSamples - 1) / kFoldSamples);
  if (blocks == 0) return nullptr;
  MIMO_LAUNCH(unsigned(blocks), kFoldThreads, 0, stream, fold_kernel<T>)(lines, padded, static_cast<T*>(out));
  return MIMO_LAUNCH_ERROR();
}

}  // namespace mimo::cuda
