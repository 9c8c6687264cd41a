// stft, istft and their adjoints on CUDA. FFTs and teams: fft.cuh; overlap-add: overlap_add.cuh.
//
// stft:           a team per frame reads, reflects and windows it on the way into the FFT and writes the bins; a block
//                 does up to 8 rounds of frames with the same tables.
// stft_backward:  the adjoint of the real FFT is an inverse one without the doubling of the inner bins; then the
//                 overlap-add into padded lines (workspace) and the fold of framing.cuh.
// istft:          inverse FFT, overlap-add, division by the envelope, in one kernel.
// istft_backward: the gradient over the envelope (workspace), then a real FFT per frame whose inner bins count twice.
#include "cuda/framing.cuh"
#include "cuda/sequences.cuh"
#include "mimo/stft.h"

namespace mimo::cuda {
namespace {

template <class T>
__device__ __forceinline__ Complex<T> load_bin(const T* bins, int k) {  // an input's address may be odd
  return {bins[2 * k], bins[2 * k + 1]};
}

template <class T, int kSize>
__global__ void __launch_bounds__(kFftMaxThreads, kFftMinBlocks<T>)
    stft_kernel(const __grid_constant__ StftParams p, const __grid_constant__ FftPlan plan, int rounds) {
  MIMO_DYNAMIC_SHARED(Complex<T>, shared);
  const Fft<T, kSize> fft(plan, shared);
  for_each_frame(plan, p.batch * p.framing.frames, rounds, [&](int64_t frame, bool live) {
    Complex<T>* out = static_cast<Complex<T>*>(p.out) + frame * (plan.half + 1);
    fft.forward(FrameReader<T>(p.in, p.window, p.framing, frame), [&](int k, Complex<T> bin) {
      if (live) out[k] = {T(0.5) * bin.re, T(0.5) * bin.im};
    });
  });
}

template <class T>
LaunchError run_stft(const StftParams& p, cudaStream_t stream) {
  const FftPlan plan = make_fft_plan<T>(p.framing.n_fft);
  const int64_t frames = p.batch * p.framing.frames, rounds = fft_rounds(plan, frames);
  if (frames == 0) return nullptr;
  const int64_t bytes = fft_shared_bytes<T>(plan);
  return with_fft_size<T>(plan.n_fft, [&](auto size) {
    constexpr int kSize = size;
    MIMO_ALLOW_SHARED(stft_kernel<T, kSize>);
    MIMO_LAUNCH(fft_grid(plan, frames, rounds), fft_block(plan), bytes, stream, stft_kernel<T, kSize>)
    (p, plan, int(rounds));
    return MIMO_LAUNCH_ERROR();
  });
}

template <class Type>
struct StftGradientFrames : PaddedLines {
  using T = Type;
  static constexpr int scratch = 0;
  const T* grad;
  const T* values;  // of the window
  T* padded;

  explicit StftGradientFrames(const StftParams& p)
      : PaddedLines(p.framing, p.batch),
        grad(static_cast<const T*>(p.in)),
        values(static_cast<const T*>(p.window)),
        padded(static_cast<T*>(p.workspace)) {}

  template <class Fft>
  __device__ __forceinline__ void fill(const Fft& fft, int64_t frame, T*) const {
    const int last = framing.n_fft / 2;
    const T* bins = grad + frame * 2 * (last + 1);
    const auto fetch = [&](int k) {
      const Complex<T> g = load_bin(bins, k);
      return k == 0 || k == last ? Complex<T>{2 * g.re, 0} : g;
    };
    fft.inverse(fetch, T(0.5));
  }
  __device__ __forceinline__ T window(int i) const { return PaddedLines::window(values, i); }
  __device__ __forceinline__ void finish(const Run& run, const T* sum, T*) const {
    PaddedLines::finish(run, sum, padded);
  }
};

template <class T>
LaunchError run_stft_backward(const StftParams& p, cudaStream_t stream) {
  const StftGradientFrames<T> frames(p);
  if (const LaunchError error = launch_lines(frames, stream)) return error;
  return launch_fold(frames, frames.padded, p.out, stream);
}

// istft's batch items as packed sequences of T rows.
SequenceFrames sequences_of(const IstftParams& p) {
  PackedSequences sequences{};
  sequences.count = p.batch;
  sequences.rows = p.frames;
  return SequenceFrames(sequences, p.batch * p.frames, p.n_fft, p.hop);
}

template <class Type>
struct IstftFrames : SequenceFrames {
  using T = Type;
  static constexpr int scratch = 0;
  const T* spectrum;
  const T* values;
  T* out;

  explicit IstftFrames(const IstftParams& p)
      : SequenceFrames(sequences_of(p)),
        spectrum(static_cast<const T*>(p.in)),
        values(static_cast<const T*>(p.window)),
        out(static_cast<T*>(p.out)) {}

  template <class Fft>
  __device__ __forceinline__ void fill(const Fft& fft, int64_t frame, T*) const {
    const T* bins = spectrum + frame * (n_fft + 2);
    fft.inverse([&](int k) { return load_bin(bins, k); }, T(1) / T(n_fft));
  }
  __device__ __forceinline__ T window(int i) const { return values[i]; }
  __device__ __forceinline__ void finish(const Run& run, const T* sum, T* table) const {
    SequenceFrames::finish(run, sum, values, table, out);
  }
};

template <class T, int kSize>
__global__ void __launch_bounds__(kFftMaxThreads, kFftMinBlocks<T>)
    istft_backward_kernel(const __grid_constant__ IstftParams p, const __grid_constant__ SequenceFrames frames,
                          const __grid_constant__ FftPlan plan, int rounds) {
  MIMO_DYNAMIC_SHARED(Complex<T>, shared);
  const Fft<T, kSize> fft(plan, shared);
  const T* scaled = static_cast<const T*>(p.workspace);
  const T scale = T(0.5) / T(p.n_fft);
  for_each_frame(plan, frames.rows, rounds, [&](int64_t frame, bool live) {
    Complex<T>* out = static_cast<Complex<T>*>(p.out) + frame * (plan.half + 1);
    const SequenceReader<T> load(frames, scaled, static_cast<const T*>(p.window), frame);
    fft.forward(load, [&](int k, Complex<T> bin) {
      const T weight = k == 0 || k == plan.half ? scale : 2 * scale;
      if (live) out[k] = {weight * bin.re, weight * bin.im};
    });
  });
}

template <class T>
LaunchError run_istft_backward(const IstftParams& p, cudaStream_t stream) {
  const SequenceFrames frames = sequences_of(p);
  if (frames.rows == 0) return nullptr;
  const FftPlan plan = make_fft_plan<T>(p.n_fft);
  if (const LaunchError error =
          launch_divide_by_envelope(frames, p.window, p.in, static_cast<T*>(p.workspace), stream)) {
    return error;
  }
  const int64_t bytes = fft_shared_bytes<T>(plan), rounds = fft_rounds(plan, frames.rows);
  return with_fft_size<T>(plan.n_fft, [&](auto size) {
    constexpr int kSize = size;
    MIMO_ALLOW_SHARED(istft_backward_kernel<T, kSize>);
    MIMO_LAUNCH(fft_grid(plan, frames.rows, rounds), fft_block(plan), bytes, stream, istft_backward_kernel<T, kSize>)
    (p, frames, plan, int(rounds));
    return MIMO_LAUNCH_ERROR();
  });
}

}  // namespace

int64_t stft_workspace(const StftParams&) { return 0; }
int64_t stft_backward_workspace(const StftParams& p) {
  return p.batch * PaddedLines(p.framing, p.batch).length * MIMO_FLOAT_OR_DOUBLE(p.dtype, int64_t(sizeof(T)));
}
int64_t istft_workspace(const IstftParams&) { return 0; }
int64_t istft_backward_workspace(const IstftParams& p) {
  return p.batch * p.frames * p.hop * MIMO_FLOAT_OR_DOUBLE(p.dtype, int64_t(sizeof(T)));
}

LaunchError stft(const StftParams& p, void* stream) {
  return MIMO_FLOAT_OR_DOUBLE(p.dtype, run_stft<T>(p, static_cast<cudaStream_t>(stream)));
}
LaunchError stft_backward(const StftParams& p, void* stream) {
  return MIMO_FLOAT_OR_DOUBLE(p.dtype, run_stft_backward<T>(p, static_cast<cudaStream_t>(stream)));
}
LaunchError istft(const IstftParams& p, void* stream) {
  return MIMO_FLOAT_OR_DOUBLE(p.dtype, launch_sequences(IstftFrames<T>(p), static_cast<cudaStream_t>(stream)));
}
LaunchError istft_backward(const IstftParams& p, void* stream) {
  return MIMO_FLOAT_OR_DOUBLE(p.dtype, run_istft_backward<T>(p, static_cast<cudaStream_t>(stream)));
}

}  // namespace mimo::cuda
