// The vocoder head on CUDA: x -> spectrum -> frames -> overlap-add -> wave in one kernel. FFTs and teams: fft.cuh;
// overlap-add: overlap_add.cuh; sequences: sequences.cuh.
//
// Forward reads x once (and once more for frames at the ends of a block's run), turns bins k and N - k into the inverse
// FFT's input on the way in, and writes the wave once. Backward divides the gradient by the envelope (workspace), takes
// a real FFT per row and turns each bin's gradient into those of its log-magnitude and phase; it reads x again instead
// of keeping the spectrum.
//
// Phases are radians of any size. sincosf's code for the large ones costs the small ones dearly (half of the head's
// instructions were exp and sincos), so it stands apart: a reduction in two steps and polynomials do for |phase| up to
// kNearPhase, with an error below 7e-8. Magnitudes are CUDA's expf (1 ulp).
#include "cuda/framing.cuh"
#include "cuda/sequences.cuh"
#include "mimo/vocoder_head.h"

namespace mimo::cuda {
namespace {

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }
constexpr float kNearPhase = 8192;
__device__ __attribute__((noinline)) Complex<float> far_direction(float x) {
  Complex<float> direction;
  sincosf(x, &direction.im, &direction.re);
  return direction;
}
__device__ __forceinline__ void sine_cosine(float x, float* s, float* c) {
  if (fabsf(x) > kNearPhase) {
    const Complex<float> direction = far_direction(x);
    *s = direction.im;
    *c = direction.re;
    return;
  }
  // x = k pi / 2 + r; adding 1.5 * 2^23 rounds to an integer, which is then in the low bits.
  constexpr float kRound = 0x1.8p23f, kHalfPi = 0x1.921fb6p0f, kRest = -0x1.777a5cp-25f;  // the two add up to pi / 2
  const float shifted = __fmaf_rn(x, 0.636619772f, kRound), k = shifted - kRound;
  const unsigned quarter = __float_as_uint(shifted);
  const float r = __fmaf_rn(k, -kRest, __fmaf_rn(k, -kHalfPi, x)), square = r * r;
  // Cephes' sinf and cosf on +-pi / 4, and a little more.
  float sine = __fmaf_rn(__fmaf_rn(square, -1.9515295891e-4f, 8.3321608736e-3f), square, -1.6666654611e-1f);
  sine = __fmaf_rn(sine * square, r, r);
  float cosine = __fmaf_rn(__fmaf_rn(square, 2.443315711809948e-5f, -1.388731625493765e-3f), square, 4.1666645683e-2f);
  cosine = __fmaf_rn(__fmaf_rn(cosine, square, -0.5f), square, 1.0f);
  const bool odd = quarter & 1;
  *s = __uint_as_float(__float_as_uint(odd ? cosine : sine) ^ (quarter & 2) << 30);
  *c = __uint_as_float(__float_as_uint(odd ? sine : cosine) ^ ((quarter + 1) & 2) << 30);
}
__device__ __forceinline__ void sine_cosine(double x, double* s, double* c) { sincos(x, s, c); }

// A bin of row x: its magnitude (NaN stays NaN), whether that was clipped, its direction.
template <class T>
struct Polar {
  T magnitude, sine, cosine;
  bool clipped;

  __device__ __forceinline__ Polar(const T* row, int bins, int k, T max_magnitude) : magnitude(exponential(row[k])) {
    clipped = magnitude > max_magnitude;
    if (clipped) magnitude = max_magnitude;
    sine_cosine(row[bins + k], &sine, &cosine);
  }
};

template <class Type>
struct HeadFrames : SequenceFrames {
  using T = Type;
  static constexpr int scratch = 0;
  const T* x;
  const T* values;  // of the window
  T* out;
  T max_magnitude;

  explicit HeadFrames(const VocoderHeadParams& p)
      : SequenceFrames(p.sequences, p.sequences.rows, p.n_fft, p.hop),
        x(static_cast<const T*>(p.x)),
        values(static_cast<const T*>(p.window)),
        out(static_cast<T*>(p.out)),
        max_magnitude(T(p.max_magnitude)) {}

  template <class Fft>
  __device__ __forceinline__ void fill(const Fft& fft, int64_t frame, T*) const {
    const T* row = x + frame * (n_fft + 2);
    const auto fetch = [&](int k) {
      const Polar<T> bin(row, n_fft / 2 + 1, k, max_magnitude);
      return Complex<T>{bin.magnitude * bin.cosine, bin.magnitude * bin.sine};
    };
    fft.inverse(fetch, T(1) / T(n_fft));
  }
  __device__ __forceinline__ T window(int i) const { return values[i]; }
  __device__ __forceinline__ void finish(const Run& run, const T* sum, T* table) const {
    SequenceFrames::finish(run, sum, values, table, out);
  }
};

template <class T, int kSize>
__global__ void __launch_bounds__(kFftMaxThreads, kFftMinBlocks<T>)
    head_backward_kernel(const __grid_constant__ VocoderHeadParams p, const __grid_constant__ SequenceFrames frames,
                         const __grid_constant__ FftPlan plan, int rounds) {
  MIMO_DYNAMIC_SHARED(Complex<T>, shared);
  const Fft<T, kSize> fft(plan, shared);
  const T* scaled = static_cast<const T*>(p.workspace);
  const T scale = T(0.5) / T(p.n_fft);
  const int bins = fft.half() + 1;
  for_each_frame(plan, frames.rows, rounds, [&](int64_t frame, bool live) {
    const T* row = static_cast<const T*>(p.x) + frame * 2 * bins;
    T* out = static_cast<T*>(p.out) + frame * 2 * bins;
    const SequenceReader<T> load(frames, scaled, static_cast<const T*>(p.window), frame);
    fft.forward(load, [&](int k, Complex<T> grad) {
      if (!live) return;
      const Polar<T> bin(row, bins, k, T(p.max_magnitude));
      const T weight = (k == 0 || k == bins - 1 ? scale : 2 * scale) * bin.magnitude;
      out[k] = bin.clipped ? T(0) : weight * (grad.re * bin.cosine + grad.im * bin.sine);
      out[bins + k] = weight * (grad.im * bin.cosine - grad.re * bin.sine);
    });
  });
}

template <class T>
LaunchError run_head_backward(const VocoderHeadParams& p, cudaStream_t stream) {
  const SequenceFrames frames(p.sequences, p.sequences.rows, p.n_fft, p.hop);
  if (frames.rows == 0) return nullptr;
  const FftPlan plan = make_fft_plan<T>(p.n_fft);
  if (const LaunchError error =
          launch_divide_by_envelope(frames, p.window, p.grad, static_cast<T*>(p.workspace), stream)) {
    return error;
  }
  const int64_t bytes = fft_shared_bytes<T>(plan), rounds = fft_rounds(plan, frames.rows);
  return with_fft_size<T>(plan.n_fft, [&](auto size) {
    constexpr int kSize = size;
    MIMO_ALLOW_SHARED(head_backward_kernel<T, kSize>);
    MIMO_LAUNCH(fft_grid(plan, frames.rows, rounds), fft_block(plan), bytes, stream, head_backward_kernel<T, kSize>)
    (p, frames, plan, int(rounds));
    return MIMO_LAUNCH_ERROR();
  });
}

}  // namespace

int64_t vocoder_head_workspace(const VocoderHeadParams&) { return 0; }
int64_t vocoder_head_backward_workspace(const VocoderHeadParams& p) {
  return p.sequences.rows * p.hop * MIMO_FLOAT_OR_DOUBLE(p.dtype, int64_t(sizeof(T)));
}

LaunchError vocoder_head(const VocoderHeadParams& p, void* stream) {
  return MIMO_FLOAT_OR_DOUBLE(p.dtype, launch_sequences(HeadFrames<T>(p), static_cast<cudaStream_t>(stream)));
}
LaunchError vocoder_head_backward(const VocoderHeadParams& p, void* stream) {
  return MIMO_FLOAT_OR_DOUBLE(p.dtype, run_head_backward<T>(p, static_cast<cudaStream_t>(stream)));
}

}  // namespace mimo::cuda
