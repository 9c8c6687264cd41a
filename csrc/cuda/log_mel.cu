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
// sqrt is the correctly rounded one and log CUDA's accurate one. |bin|^2 underflows below 1e-19 in float32, where
// magnitudes count as 0.
#include "cuda/framing.cuh"
#include "mimo/log_mel.h"

namespace mimo::cuda {
namespace {

__device__ __forceinline__ float square_root(float x) { return sqrtf(x); }
__device__ __forceinline__ double square_root(double x) { return sqrt(x); }
__device__ __forceinline__ float logarithm(float x) { return logf(x); }
__device__ __forceinline__ double logarithm(double x) { return log(x); }

// --- bands: line i of a matrix, a column or a row, is nonzero at most at ranges[i].first .. ranges[i].last - 1 -------

struct Range {
  int first, last;
};

template <class T>
struct Bands {
  T* weights;  // [length, lines]: entry (j, i) is the line's value at ranges[i].first + j
  Range* ranges;
  int lines, length;

  static int64_t bytes(int64_t lines, int64_t length) {
    const int64_t used = lines * length * int64_t(sizeof(T)) + lines * int64_t(sizeof(Range));
    return (used + 15) / 16 * 16;
  }
  Bands(void* workspace, int count, int size)
      : weights(static_cast<T*>(workspace)),
        ranges(reinterpret_cast<Range*>(weights + int64_t(count) * size)),
        lines(count),
        length(size) {}

  // The line times a vector in shared memory.
  __device__ __forceinline__ T product(int line, const T* vector) const {
    const Range range = ranges[line];
    const T* weight = weights + line;
    T sum = 0;
    for (int j = range.first; j < range.last; ++j, weight += lines) sum += *weight * vector[j];
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
  if (lane == 0) bands.ranges[line] = {first, last};
  for (int j = first + lane; j < last; j += 32) {
    bands.weights[int64_t(j - first) * bands.lines + line] = values[j * stride];
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

template <class T>
__global__ void __launch_bounds__(kFftMaxThreads, kFftMinBlocks<T>)
    log_mel_kernel(const __grid_constant__ LogMelParams p, const __grid_constant__ FftPlan plan, Bands<T> mels,
                   int rounds) {
  MIMO_DYNAMIC_SHARED(Complex<T>, shared);
  const Fft<T> fft(plan, shared);
  T* magnitude = fft.rest() + int(threadIdx.y) * mels.length;
  const T floor = T(p.floor);
  for_each_frame(plan, p.batch * p.framing.frames, rounds, [&](int64_t frame, bool live) {
    fft.forward(FrameReader<T>(p.wave, p.window, p.framing, frame),
                [&](int k, Complex<T> bin) { magnitude[k] = square_root(bin.re * bin.re + bin.im * bin.im); });
    fft.team_sync();
    if (!live) return;
    T* out = static_cast<T*>(p.out) + frame * p.n_mels;
    for (int m = int(threadIdx.x); m < p.n_mels; m += int(blockDim.x)) {
      const T mel = mels.product(m, magnitude);
      out[m] = logarithm(mel < floor ? floor : mel);  // NaN stays NaN
    }
  });
}

template <class T>
LaunchError run_log_mel(const LogMelParams& p, cudaStream_t stream) {
  const FftPlan plan = make_fft_plan(p.framing.n_fft);
  const int64_t frames = p.batch * p.framing.frames, rounds = fft_rounds(plan, frames);
  if (frames == 0) return nullptr;
  const Bands<T> mels(p.workspace, p.n_mels, bins_of(p));
  if (const LaunchError error = find_bands(p, mels, true, stream)) return error;
  const int64_t bytes = Fft<T>::shared_bytes(plan) + int64_t(sizeof(T)) * plan.teams * mels.length;
  MIMO_ALLOW_SHARED(bytes, log_mel_kernel<T>);
  MIMO_LAUNCH(fft_grid(plan, frames, rounds), fft_block(plan), bytes, stream, log_mel_kernel<T>)
  (p, plan, mels, int(rounds));
  return MIMO_LAUNCH_ERROR();
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
        scratch(bins_of(p) + p.n_mels),
        wave(static_cast<const T*>(p.wave)),
        values(static_cast<const T*>(p.window)),
        grad(static_cast<const T*>(p.grad)),
        floor(T(p.floor)),
        mels(static_cast<char*>(p.workspace) + padded_bytes(p), p.n_mels, bins_of(p)),
        bins(static_cast<char*>(p.workspace) + padded_bytes(p) + Bands<T>::bytes(p.n_mels, bins_of(p)), bins_of(p),
             p.n_mels),
        padded(static_cast<T*>(p.workspace)) {}

  __device__ __forceinline__ void fill(const Fft<T>& fft, int64_t frame, T* magnitude) const {
    Complex<T>* spectrum = fft.buffer();
    T* mel_grad = magnitude + bins.lines;
    fft.forward(FrameReader<T>(wave, values, framing, frame), [&](int k, Complex<T> bin) {
      spectrum[k] = bin;
      magnitude[k] = square_root(bin.re * bin.re + bin.im * bin.im);
    });
    fft.team_sync();
    const T* out_grad = grad + frame * mels.lines;
    for (int m = int(threadIdx.x); m < mels.lines; m += int(blockDim.x)) {
      const T mel = mels.product(m, magnitude);
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
  __device__ __forceinline__ void finish(const Run& run, const T* sum) const { PaddedLines::finish(run, sum, padded); }
};

template <class T>
LaunchError run_log_mel_backward(const LogMelParams& p, cudaStream_t stream) {
  const LogMelGradientFrames<T> frames(p);
  if (p.batch * frames.length > 0) {
    if (const LaunchError error = find_bands(p, frames.mels, true, stream)) return error;
    if (const LaunchError error = find_bands(p, frames.bins, false, stream)) return error;
    const FftPlan plan = make_fft_plan(p.framing.n_fft);
    const int run_length = run_length_of(frames, plan, p.batch * frames.length);
    if (const LaunchError error = launch_overlap_add(frames, plan, frames.blocks(run_length), run_length, stream)) {
      return error;
    }
  }
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
