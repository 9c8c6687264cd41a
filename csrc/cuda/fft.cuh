// Real FFTs in shared memory, for the kernels of stft, log_mel and vocoder_head.
//
// n_fft real samples x are N = n_fft / 2 complex numbers z[j] = x[2j] + i x[2j + 1]; one complex FFT of N points and a
// combination of bins k and N - k (unpack) give the n_fft / 2 + 1 bins of x; the inverse runs backwards (pack).
//
// A team of 32 to 256 threads (threadIdx.x) owns one frame and its buffer of N + 1 complex values; a block holds
// several teams (threadIdx.y) and the tables they share. A pass of radix R reads N values into registers, at most
// kFftPoints per thread or a few more, multiplies by twiddles, takes N / R small DFTs and writes the N values back to
// the same buffer in Stockham order, so no bit reversal and no second buffer is needed:
//
//   values j, j + N/R, .. -> registers -> team barrier -> (j - k) R + k, + span, ..  -> team barrier      k = j % span
//
// where span is the product of the radices before. The first pass can read from anywhere (a framed wave, say), so input
// never goes through shared memory. Odd radices come first: writes with an odd stride hit different banks. 960 samples
// take the three passes 15, 8, 4 with 32 threads, which then synchronise as a warp.
//
// Twiddles are stored in the order in which a pass reads them, so that lanes read neighbours, and are rounded from
// float64: together with at most 7 passes that keeps float32 results within 1e-6 of the frame's largest bin. An inverse
// FFT is a forward one with real and imaginary parts swapped on the way in and out.
//
// All threads of a block must take part in every member function.
#pragma once
#include <type_traits>
#include <utility>

#include "cuda/launch.h"
#include "mimo/stft.h"

namespace mimo::cuda {

template <class T>
struct alignas(2 * sizeof(T)) Complex {
  T re, im;
};
template <class T>
__device__ __forceinline__ Complex<T> operator+(Complex<T> a, Complex<T> b) {
  return {a.re + b.re, a.im + b.im};
}
template <class T>
__device__ __forceinline__ Complex<T> operator-(Complex<T> a, Complex<T> b) {
  return {a.re - b.re, a.im - b.im};
}
template <class T>
__device__ __forceinline__ Complex<T> operator*(Complex<T> a, Complex<T> b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
template <class T>
__device__ __forceinline__ Complex<T> conj(Complex<T> a) {
  return {a.re, -a.im};
}
template <class T>
__device__ __forceinline__ Complex<T> times_minus_i(Complex<T> a) {
  return {a.im, -a.re};
}

// --- the plan, made on the host and passed to kernels by value -------------------------------------------------------

inline constexpr int kFftPoints = 16;       // values of a thread in one pass
inline constexpr int kFftMaxPasses = 8;     // 3^7 is the longest list of radices up to kMaxFft / 2
inline constexpr int kFftMaxThreads = 256;  // of a block
inline constexpr int kFftMaxTeams = 4;
// For __launch_bounds__: float64 kernels may take all registers of a thread, float32 ones half.
template <class T>
inline constexpr int kFftMinBlocks = sizeof(T) == 8 ? 1 : 2;

struct FftPlan {
  int n_fft;
  int half;   // N
  int team;   // threads per frame
  int teams;  // frames a block works on at once
  int passes;
  int radix[kFftMaxPasses];
  unsigned reciprocal[kFftMaxPasses];  // ceil(2^32 / span) of each pass but the first: j / span by multiplication
};

inline FftPlan make_fft_plan(int n_fft) {
  FftPlan plan{};
  plan.n_fft = n_fft;
  plan.half = n_fft / 2;
  plan.team = 32;
  while (plan.team * kFftPoints < plan.half) plan.team *= 2;
  plan.teams = plan.team < 128 ? 128 / plan.team : 1;
  unsigned span = 1;
  const auto add = [&](int radix) {
    if (span > 1) plan.reciprocal[plan.passes] = unsigned(((uint64_t(1) << 32) + span - 1) / span);
    plan.radix[plan.passes++] = radix;
    span *= unsigned(radix);
  };
  int rest = plan.half;
  for (int radix : {15, 5, 3, 8, 4, 2}) {
    // One DFT of 15 is all a thread has registers for; 16 is better split as 4 x 4 than as 8 x 2.
    while (rest % radix == 0 && !(radix == 15 && plan.half > 15 * plan.team) && !(radix == 8 && rest == 16)) {
      add(radix);
      rest /= radix;
    }
  }
  if (plan.passes == 0) add(1);
  return plan;
}

inline dim3 fft_block(const FftPlan& plan) { return dim3(unsigned(plan.team), unsigned(plan.teams)); }

// --- small DFTs in registers, forward, natural order -----------------------------------------------------------------

struct Root {
  double re, im;
};
// e^(-2 pi i m / n), for the roots that DFTs of 8 and 15 need between their two stages.
constexpr Root small_root(int m, int n) {
  if (n == 8) {
    constexpr double h = 0.7071067811865475244;
    return m == 1 ? Root{h, -h} : m == 2 ? Root{0, -1} : Root{-h, -h};
  }
  switch (m) {
    case 1:
      return {0.9135454576426008955, -0.40673664307580020775};
    case 2:
      return {0.66913060635885821383, -0.74314482547739423501};
    case 3:
      return {0.3090169943749474241, -0.95105651629515357212};
    case 4:
      return {-0.1045284632676534714, -0.99452189536827333692};
    case 6:
      return {-0.8090169943749474241, -0.58778525229247312917};
    default:  // 8
      return {-0.97814760073380563793, 0.2079116908177593371};
  }
}

template <int M, int N, class T>
__device__ __forceinline__ Complex<T> times_root(Complex<T> a) {
  if constexpr (M == 0) {
    return a;
  } else if constexpr (4 * M == N) {
    return times_minus_i(a);
  } else {
    constexpr Root w = small_root(M, N);
    return a * Complex<T>{T(w.re), T(w.im)};
  }
}

// body(integral_constant<int, 0>), .. , body(integral_constant<int, N - 1>)
template <class Body, int... I>
__device__ __forceinline__ void static_for(std::integer_sequence<int, I...>, Body body) {
  (body(std::integral_constant<int, I>{}), ...);
}
template <int N, class Body>
__device__ __forceinline__ void static_for(Body body) {
  static_for(std::make_integer_sequence<int, N>{}, body);
}

template <int R, class T>
__device__ __forceinline__ void dft(Complex<T> (&v)[R]) {
  if constexpr (R == 2) {
    const Complex<T> a = v[0];
    v[0] = a + v[1];
    v[1] = a - v[1];
  } else if constexpr (R == 3) {
    const T s = T(0.86602540378443864676);
    const Complex<T> sum = v[1] + v[2], d = v[1] - v[2];
    const Complex<T> m = {v[0].re - T(0.5) * sum.re, v[0].im - T(0.5) * sum.im};
    const Complex<T> n = times_minus_i(Complex<T>{s * d.re, s * d.im});
    v[0] = v[0] + sum;
    v[1] = m + n;
    v[2] = m - n;
  } else if constexpr (R == 4) {
    const Complex<T> a = v[0] + v[2], b = v[0] - v[2], c = v[1] + v[3], d = times_minus_i(v[1] - v[3]);
    v[0] = a + c;
    v[1] = b + d;
    v[2] = a - c;
    v[3] = b - d;
  } else if constexpr (R == 5) {
    const T c1 = T(0.3090169943749474241), s1 = T(0.95105651629515357212);
    const T c2 = T(-0.8090169943749474241), s2 = T(0.58778525229247312917);
    const Complex<T> a = v[1] + v[4], b = v[2] + v[3], c = v[1] - v[4], d = v[2] - v[3], x = v[0];
    const Complex<T> m1 = {x.re + c1 * a.re + c2 * b.re, x.im + c1 * a.im + c2 * b.im};
    const Complex<T> m2 = {x.re + c2 * a.re + c1 * b.re, x.im + c2 * a.im + c1 * b.im};
    const Complex<T> n1 = times_minus_i(Complex<T>{s1 * c.re + s2 * d.re, s1 * c.im + s2 * d.im});
    const Complex<T> n2 = times_minus_i(Complex<T>{s2 * c.re - s1 * d.re, s2 * c.im - s1 * d.im});
    v[0] = x + a + b;
    v[1] = m1 + n1;
    v[2] = m2 + n2;
    v[3] = m2 - n2;
    v[4] = m1 - n1;
  } else if constexpr (R == 8 || R == 15) {
    // R = P Q: Q DFTs of P values with stride Q, roots, P DFTs of Q values.
    constexpr int P = R == 8 ? 2 : 3, Q = R / P;
    Complex<T> row[P][Q];
    static_for<Q>([&](auto q) {
      Complex<T> column[P];
      static_for<P>([&](auto p) { column[p] = v[Q * p + q]; });
      dft<P>(column);
      static_for<P>([&](auto p) { row[p][q] = times_root<p * q, R>(column[p]); });
    });
    static_for<P>([&](auto p) {
      dft<Q>(row[p]);
      static_for<Q>([&](auto q) { v[p + P * q] = row[p][q]; });
    });
  }
}

// --- the FFT of a team -----------------------------------------------------------------------------------------------

template <class T>
class Fft {
 public:
  // Bytes at the start of the block's shared memory: tables, then the buffers.
  static int64_t shared_bytes(const FftPlan& plan) {
    return int64_t(sizeof(Complex<T>)) * (tables(plan) + plan.teams * (plan.half + 1));
  }

  // Fills the tables.
  __device__ __forceinline__ Fft(const FftPlan& plan, Complex<T>* shared)
      : plan_(plan), roots_(shared), twiddles_(shared + plan.half / 2 + 1), buffers_(shared + tables(plan)) {
    const int thread = int(threadIdx.y * blockDim.x + threadIdx.x), threads = int(blockDim.x * blockDim.y);
    // The roots of unpack and pack are what a last pass of radix 2 would use, half of it.
    Complex<T>* table = twiddles_;
    for (int pass = 1, span = plan.radix[0]; pass <= plan.passes; ++pass) {
      const bool roots = pass == plan.passes;
      const int radix = roots ? 2 : plan.radix[pass], count = roots ? span / 2 + 1 : (radix - 1) * span;
      for (int i = thread; i < count; i += threads) {
        double s, c;
        sincospi(2.0 * ((i / span + 1) * (i % span)) / (span * radix), &s, &c);
        (roots ? roots_ : table)[i] = {T(c), T(-s)};
      }
      table += count;
      span *= radix;
    }
    __syncthreads();
  }

  // The team's buffer, or that of team `index`.
  __device__ __forceinline__ Complex<T>* buffer() const { return buffer(int(threadIdx.y)); }
  __device__ __forceinline__ Complex<T>* buffer(int index) const { return buffers_ + index * (plan_.half + 1); }
  // Shared memory after the FFT's own.
  __device__ __forceinline__ T* rest() const { return reinterpret_cast<T*>(buffer(plan_.teams)); }

  __device__ __forceinline__ static void team_sync() {
    if (blockDim.x == 32) {
      __syncwarp();
    } else {
      __syncthreads();
    }
  }

  // Real FFT of the samples load(0 .. n_fft - 1); emit(k, bin) receives each bin 0 .. N once. Bins k and N - k come
  // from the thread that alone reads entries k and N - k of the buffer, so emit may overwrite them.
  template <class Load, class Emit>
  __device__ __forceinline__ void forward(Load load, Emit emit) const {
    team_sync();  // the buffer's last readers
    for (int i = int(threadIdx.x); i < plan_.n_fft; i += int(blockDim.x)) reinterpret_cast<T*>(buffer())[i] = load(i);
    transform();
    const int half = plan_.half;
    const Complex<T>* z = buffer();
    for (int k = int(threadIdx.x); 2 * k <= half; k += int(blockDim.x)) {
      if (k == 0) {
        const Complex<T> a = z[0];
        emit(0, Complex<T>{a.re + a.im, 0});
        emit(half, Complex<T>{a.re - a.im, 0});
        continue;
      }
      const Complex<T> a = z[k], b = conj(z[half - k]), d = times_minus_i(a - b);
      const Complex<T> even = {T(0.5) * (a.re + b.re), T(0.5) * (a.im + b.im)};
      const Complex<T> odd = roots_[k] * Complex<T>{T(0.5) * d.re, T(0.5) * d.im};
      emit(k, even + odd);
      if (2 * k != half) emit(half - k, conj(even - odd));
    }
  }

  // Inverse real FFT of the bins fetch(0 .. N), times `scale`: sample(frame buffer, i) then reads
  //   scale (Re X[0] + (-1)^i Re X[N] + 2 Re sum_{0 < k < N} X[k] e^(2 pi i k i / n_fft)).
  // fetch may read entries k and N - k of the buffer, whichever thread wrote them, after a team_sync.
  template <class Fetch>
  __device__ __forceinline__ void inverse(Fetch fetch, T scale) const {
    const int half = plan_.half;
    Complex<T>* z = buffer();
    for (int k = int(threadIdx.x); 2 * k <= half; k += int(blockDim.x)) {
      const Complex<T> a = fetch(k), last = fetch(half - k);
      if (k == 0) {
        z[0] = {scale * (a.re - last.re), scale * (a.re + last.re)};
        continue;
      }
      const Complex<T> b = conj(last), even = a + b, odd = conj(roots_[k]) * (a - b);
      // Z[k] = even + i odd and Z[N - k] = conj(even) + i conj(odd), each with its parts swapped.
      z[k] = {scale * (even.im + odd.re), scale * (even.re - odd.im)};
      z[half - k] = {scale * (odd.re - even.im), scale * (even.re + odd.im)};
    }
    transform();
  }

  __device__ __forceinline__ static T sample(const Complex<T>* buffer, int i) {
    return reinterpret_cast<const T*>(buffer)[i ^ 1];
  }

 private:
  // The twiddles of all passes and the roots of unpack and pack.
  __host__ __device__ static int tables(const FftPlan& plan) { return plan.half - plan.radix[0] + plan.half / 2 + 1; }

  // Complex FFT in the buffer.
  __device__ __forceinline__ void transform() const {
    team_sync();
    const Complex<T>* table = twiddles_;
#pragma unroll 1
    for (int i = 0, span = 1; i < plan_.passes; ++i) {
      const int radix = plan_.radix[i];
      const unsigned reciprocal = plan_.reciprocal[i];
      switch (radix) {
        case 15:
          pass<15>(span, reciprocal, table);
          break;
        case 8:
          pass<8>(span, reciprocal, table);
          break;
        case 5:
          pass<5>(span, reciprocal, table);
          break;
        case 4:
          pass<4>(span, reciprocal, table);
          break;
        case 3:
          pass<3>(span, reciprocal, table);
          break;
        case 2:
          pass<2>(span, reciprocal, table);
          break;
      }
      if (i > 0) table += (radix - 1) * span;
      span *= radix;
    }
  }

  template <int R>
  __device__ __forceinline__ void pass(int span, unsigned reciprocal, const Complex<T>* table) const {
    constexpr int kDfts = R == 15 ? 1 : (kFftPoints + R - 1) / R;  // of a thread
    const int count = plan_.half / R;
    Complex<T>* z = buffer();
    Complex<T> v[kDfts][R];
    // Threads without a DFT of their own repeat the last one and drop it: no branches around the arithmetic.
#pragma unroll
    for (int u = 0; u < kDfts; ++u) {
      const int j = min(int(threadIdx.x) + u * int(blockDim.x), count - 1);
#pragma unroll
      for (int r = 0; r < R; ++r) v[u][r] = z[j + r * count];
    }
    team_sync();
#pragma unroll
    for (int u = 0; u < kDfts; ++u) {
      const int j = min(int(threadIdx.x) + u * int(blockDim.x), count - 1);
      const int k = span == 1 ? 0 : j - int((uint64_t(unsigned(j)) * reciprocal) >> 32) * span;
      if (span > 1) {
#pragma unroll
        for (int r = 1; r < R; ++r) v[u][r] = v[u][r] * table[(r - 1) * span + k];
      }
      dft<R>(v[u]);
      if (int(threadIdx.x) + u * int(blockDim.x) < count) {
        const int first = (j - k) * R + k;
#pragma unroll
        for (int r = 0; r < R; ++r) z[first + r * span] = v[u][r];
      }
    }
    team_sync();
  }

  const FftPlan& plan_;
  Complex<T>* roots_;
  Complex<T>* twiddles_;
  Complex<T>* buffers_;
};

}  // namespace mimo::cuda
