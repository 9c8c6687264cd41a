// Log-mel spectrogram on CUDA. FFTs and teams: fft.cuh; framing, padding's gradient: framing.cuh, overlap_add.cuh.
//
// Forward: a team per frame reads, windows and transforms it, leaves the magnitudes in shared memory, and each thread
// sums some of the mels; the spectrum never reaches global memory. Backward: a block recomputes the spectra of the
// frames it overlap-adds; per frame
//   d mel = d out / mel (0 below the floor),  d bin = (bin / |bin|) sum_m filterbank[bin, m] d mel[m],
// then the adjoint of the real FFT in the same buffer.
//
// Mel filters are narrow bands of an otherwise zero matrix, but the op takes any matrix. So a first kernel finds each
// column's band (first to last nonzero) and copies it into the workspace so that lanes, which own neighbouring columns,
// read neighbouring words; backward does so for the rows too. A dense matrix only makes the bands wide.
//
// log is CUDA's accurate one; the square root is one Newton step from the approximate reciprocal root. |bin|^2
// underflows below 1e-19 in float32, where magnitudes count as 0.
#include <cfloat>

#include "cuda/framing.cuh"
#include "mimo/log_mel.h"

namespace mimo::cuda {
namespace {

// As exact as a rounding and a half; sqrtf has a branch, which keeps 16 roots of a thread from overlapping. r has an
// error of 2^-22, so s + (x - s^2) r / 2 one of 2^-44 before it is rounded.
__device__ __forceinline__ float square_root(float x) {
  const float r = reciprocal_root(x), s = x * r;
  const float root = fmaf(fmaf(-s, s, x), 0.5f * r, s);
  return x < FLT_MIN ? 0.0f : x <= FLT_MAX ? root : x;
}
__device__ __forceinline__ double square_root(double x) { return sqrt(x); }
__device__ __forceinline__ float logarithm(float x) { return logf(x); }
__device__ __forceinline__ double logarithm(double x) { return log(x); }

// --- bands: line i of a matrix, a column or a row, is nonzero at most at ranges[i].first and `count` values on -------

struct alignas(8) Range {
  int first, count;  // a multiple of kBandStep
};

inline constexpr int kBandStep = 4;  // values of a line that a thread adds at once; zeros fill the last step

template <class T>
struct Bands {
  T* weights;  // [lines / 32, steps, 32]: lanes of a warp own neighbouring lines
  Range* ranges;
  int lines, length;

  // Values of a line, and of the vector that it multiplies, in whole steps.
  static constexpr int padded(int length) { return (length + kBandStep - 1) / kBandStep * kBandStep; }
  static int64_t values(int64_t lines, int length) { return (lines + 31) / 32 * 32 * padded(length); }
  static int64_t bytes(int64_t lines, int length) {
    const int64_t used = values(lines, length) * int64_t(sizeof(T)) + lines * int64_t(sizeof(Range));
    return (used + 15) / 16 * 16;
  }
  Bands(void* workspace, int count, int size)
      : weights(static_cast<T*>(workspace)),
        ranges(reinterpret_cast<Range*>(weights + values(count, size))),
        lines(count),
        length(size) {}

  __device__ __forceinline__ T* line(int i) const { return weights + int64_t(i / 32) * padded(length) * 32 + i % 32; }

  // The line times a vector in shared memory, whose entries from `length` on are zero.
  __device__ __forceinline__ T product(int i, const T* vector) const {
    const Range range = ranges[i];
    const T* weight = line(i);
    vector += range.first;
    T sum = 0;
#pragma unroll 4
    for (int j = 0; j < range.count; j += kBandStep, weight += 32 * kBandStep, vector += kBandStep) {
#pragma unroll
      for (int k = 0; k < kBandStep; ++k) sum += weight[32 * k] * vector[k];
    }
    return sum;
  }
};

// One warp per line; value j of line i is matrix[i * line_stride + j * stride].
template <class T>
__global__ void bands_kernel(Bands<T> bands, const T* matrix, int64_t line_stride, int64_t stride) {
  const int line = int(blockIdx.x), lane = int(threadIdx.x);
  const T* values = matrix + line * line_stride;
  int first = bands.length, last = 0;
  for (int j = lane; j < bands.length; j += 32) {
    if (values[j * stride] != 0) {
      first = min(first, j);
      last = j + 1;
    }
  }
  for (int bit = 16; bit > 0; bit /= 2) {
    first = min(first, __shfl_xor_sync(~0u, first, bit));
    last = max(last, __shfl_xor_sync(~0u, last, bit));
  }
  // A band of whole steps, moved down where it would end past the vector's.
  const int count = last > first ? bands.padded(last - first) : 0;
  first = min(first, bands.padded(bands.length) - count);
  if (lane == 0) bands.ranges[line] = {first, count};
  for (int j = lane; j < count; j += 32) {
    bands.line(line)[32 * j] = first + j < bands.length ? values[(first + j) * stride] : T(0);
  }
}

// Bands of the filterbank's columns (mels, over bins) or rows (bins, over mels).
template <class T>
LaunchError find_bands(const LogMelParams& p, const Bands<T>& bands, bool columns, cudaStream_t stream) {
  MIMO_LAUNCH(unsigned(bands.lines), 32, 0, stream, bands_kernel<T>)
  (bands, static_cast<const T*>(p.filterbank), columns ? int64_t(1) : int64_t(p.n_mels),
   columns ? int64_t(p.n_mels) : int64_t(1));
  return MIMO_LAUNCH_ERROR();
}

int bins_of(const LogMelParams& p) { return p.framing.n_fft / 2 + 1; }

// --- forward ---------------------------------------------------------------------------------------------------------

// Zeros after a vector of `length` values, so that bands may read whole steps.
template <class T>
__device__ __forceinline__ void pad_vector(T* vector, int length) {
  for (int i = length + int(threadIdx.x); i < Bands<T>::padded(length); i += int(blockDim.x)) vector[i] = 0;
}

template <class T, int kSize>
__global__ void __launch_bounds__(kFftMaxThreads, kFftMinBlocks<T>)
    log_mel_kernel(const __grid_constant__ LogMelParams p, const __grid_constant__ FftPlan plan, Bands<T> mels,
                   int rounds) {
  MIMO_DYNAMIC_SHARED(Complex<T>, shared);
  const Fft<T, kSize> fft(plan, shared);
  T* magnitude = fft.rest() + int(threadIdx.y) * mels.padded(mels.length);
  pad_vector(magnitude, mels.length);
  const T floor = T(p.floor);
  for_each_frame(plan, p.batch * p.framing.frames, rounds, [&](int64_t frame, bool live) {
    fft.forward(FrameReader<T>(p.wave, p.window, p.framing, frame),
                [&](int k, Complex<T> bin) { magnitude[k] = square_root(bin.re * bin.re + bin.im * bin.im); });
    fft.team_sync();
    if (!live) return;
    T* out = static_cast<T*>(p.out) + frame * p.n_mels;
    for (int m = int(threadIdx.x); m < p.n_mels; m += int(blockDim.x)) {
      const T mel = T(0.5) * mels.product(m, magnitude);
      out[m] = logarithm(mel < floor ? floor : mel);  // NaN stays NaN
    }
  });
}

template <class T>
LaunchError run_log_mel(const LogMelParams& p, cudaStream_t stream) {
  const FftPlan plan = make_fft_plan<T>(p.framing.n_fft);
  const int64_t frames = p.batch * p.framing.frames, rounds = fft_rounds(plan, frames);
  if (frames == 0) return nullptr;
  const Bands<T> mels(p.workspace, p.n_mels, bins_of(p));
  if (const LaunchError error = find_bands(p, mels, true, stream)) return error;
  const int64_t bytes = fft_shared_bytes<T>(plan) + int64_t(sizeof(T)) * plan.teams * mels.padded(mels.length);
  return with_fft_size<T>(plan.n_fft, [&](auto size) {
    constexpr int kSize = size;
    MIMO_ALLOW_SHARED(log_mel_kernel<T, kSize>);
    MIMO_LAUNCH(fft_grid(plan, frames, rounds), fft_block(plan), bytes, stream, log_mel_kernel<T, kSize>)
    (p, plan, mels, int(rounds));
    return MIMO_LAUNCH_ERROR();
  });
}

// --- backward --------------------------------------------------------------------------------------------------------

template <class Type>
struct LogMelGradientFrames : PaddedLines {
  using T = Type;
  int scratch;  // magnitudes of the bins, then gradients of the mels
  const T* wave;
  const T* values;  // of the window
  const T* grad;
  T floor;
  Bands<T> mels;  // over bins
  Bands<T> bins;  // over mels
  T* padded;

  static int64_t padded_bytes(const LogMelParams& p) {
    const int64_t used = p.batch * PaddedLines(p.framing, p.batch).length * int64_t(sizeof(T));
    return (used + 15) / 16 * 16;
  }
  static int64_t workspace_bytes(const LogMelParams& p) {
    return padded_bytes(p) + Bands<T>::bytes(p.n_mels, bins_of(p)) + Bands<T>::bytes(bins_of(p), p.n_mels);
  }

  explicit LogMelGradientFrames(const LogMelParams& p)
      : PaddedLines(p.framing, p.batch),
        scratch(Bands<T>::padded(bins_of(p)) + Bands<T>::padded(p.n_mels)),
        wave(static_cast<const T*>(p.wave)),
        values(static_cast<const T*>(p.window)),
        grad(static_cast<const T*>(p.grad)),
        floor(T(p.floor)),
        mels(static_cast<char*>(p.workspace) + padded_bytes(p), p.n_mels, bins_of(p)),
        bins(static_cast<char*>(p.workspace) + padded_bytes(p) + Bands<T>::bytes(p.n_mels, bins_of(p)), bins_of(p),
             p.n_mels),
        padded(static_cast<T*>(p.workspace)) {}

  template <class Fft>
  __device__ __forceinline__ void fill(const Fft& fft, int64_t frame, T* magnitude) const {
    Complex<T>* spectrum = fft.buffer();
    T* mel_grad = magnitude + mels.padded(mels.length);
    pad_vector(magnitude, mels.length);
    pad_vector(mel_grad, bins.length);
    fft.forward(FrameReader<T>(wave, values, framing, frame), [&](int k, Complex<T> bin) {
      spectrum[k] = bin;
      magnitude[k] = square_root(bin.re * bin.re + bin.im * bin.im);
    });
    fft.team_sync();
    const T* out_grad = grad + frame * mels.lines;
    for (int m = int(threadIdx.x); m < mels.lines; m += int(blockDim.x)) {
      const T mel = T(0.5) * mels.product(m, magnitude);
      mel_grad[m] = mel < floor ? T(0) : out_grad[m] / mel;
    }
    fft.team_sync();
    const int last = bins.lines - 1;
    const auto fetch = [&](int k) -> Complex<T> {
      if (magnitude[k] == 0) return {0, 0};
      const T weight = bins.product(k, mel_grad) / magnitude[k];
      const Complex<T> bin = spectrum[k];
      // The inverse doubles inner bins, its adjoint must not; the first and last bin are real.
      return k == 0 || k == last ? Complex<T>{2 * weight * bin.re, 0} : Complex<T>{weight * bin.re, weight * bin.im};
    };
    fft.inverse(fetch, T(0.5));
  }
  __device__ __forceinline__ T window(int i) const { return PaddedLines::window(values, i); }
  __device__ __forceinline__ void finish(const Run& run, const T* sum, T*) const {
    PaddedLines::finish(run, sum, padded);
  }
};

template <class T>
LaunchError run_log_mel_backward(const LogMelParams& p, cudaStream_t stream) {
  const LogMelGradientFrames<T> frames(p);
  if (p.batch * frames.length > 0) {
    if (const LaunchError error = find_bands(p, frames.mels, true, stream)) return error;
    if (const LaunchError error = find_bands(p, frames.bins, false, stream)) return error;
  }
  if (const LaunchError error = launch_lines(frames, stream)) return error;
  return launch_fold(frames, frames.padded, p.out, stream);
}

}  // namespace

int64_t log_mel_workspace(const LogMelParams& p) {
  return MIMO_FLOAT_OR_DOUBLE(p.dtype, Bands<T>::bytes(p.n_mels, bins_of(p)));
}
int64_t log_mel_backward_workspace(const LogMelParams& p) {
  return MIMO_FLOAT_OR_DOUBLE(p.dtype, LogMelGradientFrames<T>::workspace_bytes(p));
}

LaunchError log_mel(const LogMelParams& p, void* stream) {
  return MIMO_FLOAT_OR_DOUBLE(p.dtype, run_log_mel<T>(p, static_cast<cudaStream_t>(stream)));
}
LaunchError log_mel_backward(const LogMelParams& p, void* stream) {
  return MIMO_FLOAT_OR_DOUBLE(p.dtype, run_log_mel_backward<T>(p, static_cast<cudaStream_t>(stream)));
}

}  // namespace mimo::cuda
