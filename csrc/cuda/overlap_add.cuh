// Overlap-add without atomics, for istft, vocoder_head and the gradients of stft and log_mel with respect to the wave.
//
// A block owns a run of output samples. It computes every frame that reaches into the run, as many at a time as it has
// teams, each in its team's FFT buffer, and then each thread adds, to samples of its own, what those frames hold there:
//
//   frame 0   |---------------|
//   frame 1        |---------------|                 frames at a run's ends are computed by two blocks
//   frame 2             |---------------|
//   run          [=============]
//
// Frames are added in ascending order whatever the grid, so results are the same in every launch. A run of 6 n_fft
// samples computes an eighth more frames than needed at a hop of n_fft / 4; short signals take shorter runs to fill the
// GPU.
//
// The kernel is one for all uses; a `Frames` struct says where frames lie and how one is computed:
//   using T;  int scratch;              dtype; values of T in shared memory that each team wants
//   Run run(block, run_length)          the block's run and its frames
//   Reach reach(frame, run)             where a frame lies in the run
//   void fill(fft, frame, scratch)      computes the frame, for Fft::sample to read
//   T window(i), int hop_length()       weight of a frame's sample i; samples from a frame's start to the next one's
//   void finish(run, sum, buffer)       writes the run; `buffer` is shared memory for n_fft values, free by then
#pragma once
#include <algorithm>

#include "cuda/fft.cuh"

namespace mimo::cuda {

struct Run {
  int64_t begin;        // first sample, in the coordinates in which frame t lies at t * hop - left
  int length;           // samples
  int64_t first, last;  // frames first .. last - 1 reach into it
  int64_t out;          // index of the first sample in the output
};

// In samples from the run's begin: a frame's sample 0 lies at `start`, the frame adds to samples begin .. end - 1.
struct Reach {
  int start, begin, end;
};

__device__ __forceinline__ int64_t floor_divide(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

// The run's samples and those of the frames 0 .. frames - 1 that touch them.
__device__ __forceinline__ Run run_of(int64_t begin, int length, int64_t frames, int n_fft, int hop, int64_t left) {
  const int64_t first = floor_divide(begin + left - n_fft, hop) + 1,
                last = floor_divide(begin + left + length - 1, hop);
  return {begin, length, max(first, int64_t(0)), min(last + 1, frames), begin};
}

// A frame from `start` on that may touch samples begin .. end - 1 of a run of `length` samples; all from the run's
// begin.
__device__ __forceinline__ Reach reach_of(int64_t start, int n_fft, int64_t begin, int64_t end, int length) {
  return {int(start), int(max(max(start, begin), int64_t(0))), int(min(min(start + n_fft, end), int64_t(length)))};
}

__device__ __forceinline__ int block_thread() { return int(threadIdx.y * blockDim.x + threadIdx.x); }
__device__ __forceinline__ int block_threads() { return int(blockDim.x * blockDim.y); }

// Adds frames of four hops that follow each other, hop by hop: a thread owns a pair of samples of every hop, so that it
// needs four pairs of the window, in registers, and reads and writes a pair of the run once for four frames. Order and
// result are those of the plain loop.
template <class T, int kHop>
struct QuarterFrames {
  Complex<T> window[4];
  int own;  // the thread's pair, in samples from a hop's start; -1: none

  template <class Frames>
  __device__ __forceinline__ explicit QuarterFrames(const Frames& frames) : own(2 * block_thread()) {
    if (own >= kHop) own = -1;
    for (int m = 0; m < 4 && own >= 0; ++m)
      window[m] = {frames.window(m * kHop + own), frames.window(m * kHop + own + 1)};
  }

  // Whether frames at reach[0 .. count - 1] are such, and whole but for the run's ends. Samples of the run in pairs.
  __device__ __forceinline__ static bool fit(const Reach* reach, int count, int length) {
    bool fits = (reach[0].start | length) % 2 == 0;
    for (int f = 0; f < count; ++f) {
      const int start = reach[0].start + f * kHop;
      fits = fits && reach[f].start == start && reach[f].begin == max(start, 0) &&
             reach[f].end == min(start + 4 * kHop, length);
    }
    return fits;
  }

  template <class Fft>
  __device__ __forceinline__ void add(const Fft& fft, int start, int count, int length, T* sum) const {
    if (own < 0) return;
#pragma unroll
    for (int hop = 0; hop < Fft::kTeams + 3; ++hop) {
      const int i = start + hop * kHop + own;
      if (i < 0 || i >= length) continue;
      Complex<T>* to = reinterpret_cast<Complex<T>*>(sum + i);
      Complex<T> value = *to;
#pragma unroll
      for (int f = 0; f < Fft::kTeams; ++f) {
        const int m = hop - f;
        if (m < 0 || m > 3 || f >= count) continue;
        const Complex<T> pair = fft.buffer(f)[(m * kHop + own) / 2];  // parts swapped, see Fft::sample
        value.re += pair.im * window[m].re;
        value.im += pair.re * window[m].im;
      }
      *to = value;
    }
  }
};

template <class Frames, int kSize>
__global__ void __launch_bounds__(kFftMaxThreads, kFftMinBlocks<typename Frames::T>)
    overlap_add_kernel(const __grid_constant__ Frames frames, const __grid_constant__ FftPlan plan, int run_length) {
  using T = typename Frames::T;
  MIMO_DYNAMIC_SHARED(Complex<T>, shared);
  const Fft<T, kSize> fft(plan, shared);
  Reach* reach = reinterpret_cast<Reach*>(fft.rest());  // of the teams' frames
  T* sum = reinterpret_cast<T*>(reach + kFftMaxTeams);
  T* scratch = sum + run_length + int(threadIdx.y) * frames.scratch;
  const Run run = frames.run(blockIdx.x, run_length);
  const int thread = block_thread(), threads = fft.threads();
  [[maybe_unused]] const QuarterFrames<T, kSize / 4> quarters(frames);
  for (int i = thread; i < run.length; i += threads) sum[i] = 0;
  for (int64_t first = run.first; first < run.last; first += plan.teams) {
    const int count = int(min(run.last - first, int64_t(plan.teams)));
    // A team without a frame repeats the last one, because barriers want every thread.
    const int64_t frame = first + min(int(threadIdx.y), count - 1);
    frames.fill(fft, frame, scratch);
    if (threadIdx.x == 0) reach[threadIdx.y] = frames.reach(frame, run);
    __syncthreads();
    if constexpr (kSize != 0) {
      if (frames.hop_length() == kSize / 4 && quarters.fit(reach, count, run.length)) {
        quarters.add(fft, reach[0].start, count, run.length, sum);
        __syncthreads();
        continue;
      }
    }
    // Sample i belongs to thread i % threads, so that frames need no barrier between them.
    for (int f = 0; f < count; ++f) {
      const Reach at = reach[f];
      int i = at.begin + ((thread - at.begin) & (threads - 1));
      const T* sample = fft.sample(f, i - at.start);
#pragma unroll 4
      for (; i < at.end; i += threads, sample += threads) sum[i] += *sample * frames.window(i - at.start);
    }
    __syncthreads();
  }
  frames.finish(run, sum, reinterpret_cast<T*>(fft.buffer(0)));
}

// All that the kernel has is dynamic shared memory, so that this is what counts against a block's limit.
template <class T>
int64_t fixed_shared_bytes(const FftPlan& plan) {
  return fft_shared_bytes<T>(plan) + kFftMaxTeams * int64_t(sizeof(Reach));
}

// Samples per block for `samples` in all: see above, in 64 KB of shared memory, or half a frame where that is more.
template <class Frames>
int run_length_of(const Frames& frames, const FftPlan& plan, int64_t samples) {
  using T = typename Frames::T;
  const int64_t used = fixed_shared_bytes<T>(plan) + int64_t(sizeof(T)) * plan.teams * frames.scratch;
  const int64_t room = std::max<int64_t>((64 * 1024 - used) / int64_t(sizeof(T)), plan.n_fft / 2);
  const int length = int(std::min(room, std::clamp<int64_t>(samples / 512, plan.n_fft, 6 * plan.n_fft)));
  return plan.n_fft % 4 == 0 ? length / 2 * 2 : length;  // QuarterFrames takes pairs
}

// `samples`: the length of all runs together.
template <class Frames>
LaunchError launch_overlap_add(const Frames& frames, int n_fft, int64_t samples, cudaStream_t stream) {
  using T = typename Frames::T;
  const FftPlan plan = make_fft_plan<T>(n_fft);
  const int run_length = run_length_of(frames, plan, samples);
  const int64_t blocks = frames.blocks(run_length);
  const int64_t bytes =
      fixed_shared_bytes<T>(plan) + int64_t(sizeof(T)) * (run_length + int64_t(plan.teams) * frames.scratch);
  return with_fft_size<T>(n_fft, [&](auto size) {
    constexpr int kSize = size;
    MIMO_ALLOW_SHARED(overlap_add_kernel<Frames, kSize>);
    MIMO_LAUNCH(unsigned(blocks), fft_block(plan), bytes, stream, overlap_add_kernel<Frames, kSize>)
    (frames, plan, run_length);
    return MIMO_LAUNCH_ERROR();
  });
}

}  // namespace mimo::cuda
