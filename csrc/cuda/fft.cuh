// Real FFTs in shared memory, for the kernels of stft, log_mel and vocoder_head.
//
// n_fft real samples x are N = n_fft / 2 complex numbers z[j] = x[2j] + i x[2j + 1]; one complex FFT of N points and a
// combination of bins k and N - k give the n_fft / 2 + 1 bins of x; the inverse runs backwards.
//
// A team of 32 to 256 threads (threadIdx.x) owns one frame and its buffer; a block holds several teams (threadIdx.y)
// and the tables they share. A pass of radix R reads N values into registers, at most kFftPoints per thread or a few
// more, multiplies by twiddles, takes N / R small DFTs and writes the N values back to the same buffer in Stockham
// order, so no bit reversal and no second buffer is needed:
//
//   values j, j + N/R, .. -> registers -> team barrier -> (j - k) R + k, + span, ..  -> team barrier      k = j % span
//
// where span is the product of the radices before. 960 samples take the three passes 15, 8, 4 with 32 threads, which
// then synchronise as a warp. A frame's first pass reads its samples from global memory as pairs; frames that reflect,
// or whose pairs are not aligned, go through the buffer instead: such code inside the pass would be unrolled 16 times
// and spill.
//
// Banks: values of 8 bytes make 16 lanes one access. Lanes j, j + 1, .. write to addresses that are neighbours inside
// blocks of R span values, one block for each j / span. So blocks lie `pad` values further apart, chosen so that the
// next block goes on at the bank where the lanes are (a first pass has blocks of R values: an odd distance will do),
// and the next pass reads around the gaps. Without it the first pass of powers of two is 8 accesses instead of 1.
//
// The kernels are issue bound, not memory bound (960 samples: about 1.5 KB of traffic and 1800 instructions of a warp
// per frame), so Fft<T, 960> has its plan as constants: spans, strides and offsets fold into the instructions.
//
// Twiddles are stored in the order in which a pass reads them, so that lanes read neighbours, and are rounded from
// float64: together with at most 7 passes that keeps float32 results within 1e-6 of the frame's largest bin. An inverse
// FFT is a forward one with real and imaginary parts swapped on the way in and out.
//
// Shared memory is 3 N / 2 complex values for the tables and N to 9 N / 8 for each team: 22 KB for 960 samples in
// float32, 86 KB for 8192; in float64 8192 samples take 160 KB, and the kernels that overlap-add them need Hopper's 227
// KB.
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
  int half;    // N
  int team;    // threads per frame
  int teams;   // frames a block works on at once
  int buffer;  // complex values of a team's buffer
  int passes;
  int radix[kFftMaxPasses];
  int span[kFftMaxPasses];             // product of the radices before
  int pad[kFftMaxPasses];              // values between the blocks of radix * span that the pass writes
  unsigned reciprocal[kFftMaxPasses];  // ceil(2^32 / span) of each pass but the first: j / span by multiplication
};

// `padded`: float64 has no shared memory to spare, nor anyone who waits for it.
constexpr FftPlan make_fft_plan(int n_fft, bool padded) {
  FftPlan plan{};
  plan.n_fft = n_fft;
  plan.half = n_fft / 2;
  plan.team = 32;
  while (plan.team * kFftPoints < plan.half) plan.team *= 2;
  plan.teams = plan.team < 128 ? 128 / plan.team : 1;
  plan.buffer = plan.half + 1;
  int rest = plan.half, span = 1;
  for (int radix : {15, 5, 3, 8, 4, 2, 1}) {
    // One DFT of 15 is all a thread has registers for; 16 is better split as 4 x 4 than as 8 x 2.
    while (rest % radix == 0 && !(radix == 15 && plan.half > 15 * plan.team) && !(radix == 8 && rest == 16) &&
           (radix > 1 || plan.passes == 0)) {
      const int i = plan.passes++, block = radix * span;
      plan.radix[i] = radix;
      plan.span[i] = span;
      if (i > 0) plan.reciprocal[i] = unsigned(((uint64_t(1) << 32) + unsigned(span) - 1) / unsigned(span));
      rest /= radix;
      const int pad = i == 0 ? 1 - radix % 2 : (span - block) & 15, gaps = pad * (plan.half / block);
      if (padded && rest > 1 && gaps <= plan.half / 8) {
        plan.pad[i] = pad;
        plan.buffer = plan.buffer < plan.half + gaps ? plan.half + gaps : plan.buffer;
      }
      span = block;
    }
  }
  return plan;
}
template <class T>
FftPlan make_fft_plan(int n_fft) {
  return make_fft_plan(n_fft, sizeof(T) == 4);
}

// body(size): a constant that the kernels are compiled for, or 0, any size.
template <class T, class Body>
auto with_fft_size(int n_fft, Body body) {
  if constexpr (sizeof(T) == 4) {
    if (n_fft == 960) return body(std::integral_constant<int, 960>{});
  }
  return body(std::integral_constant<int, 0>{});
}

inline dim3 fft_block(const FftPlan& plan) { return dim3(unsigned(plan.team), unsigned(plan.teams)); }

// --- small DFTs in registers, forward, natural order -----------------------------------------------------------------

// a e^(-2 pi i M / 8)
template <int M, class T>
__device__ __forceinline__ Complex<T> times_eighth(Complex<T> a) {
  const T h = T(0.7071067811865475244);
  if constexpr (M == 0) {
    return a;
  } else if constexpr (M == 1) {
    return {h * (a.re + a.im), h * (a.im - a.re)};
  } else if constexpr (M == 2) {
    return times_minus_i(a);
  } else {
    return {h * (a.im - a.re), -h * (a.re + a.im)};
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
  } else if constexpr (R == 8) {
    Complex<T> even[4] = {v[0] + v[4], v[1] + v[5], v[2] + v[6], v[3] + v[7]};
    Complex<T> odd[4] = {v[0] - v[4], times_eighth<1>(v[1] - v[5]), times_eighth<2>(v[2] - v[6]),
                         times_eighth<3>(v[3] - v[7])};
    dft<4>(even);
    dft<4>(odd);
    static_for<4>([&](auto i) {
      v[2 * i] = even[i];
      v[2 * i + 1] = odd[i];
    });
  } else if constexpr (R == 15) {
    // Inputs 5 a + 3 b and outputs 10 c + 6 d (mod 15): 3 x 5 without roots in between.
    Complex<T> row[3][5];
    static_for<5>([&](auto b) {
      Complex<T> column[3] = {v[3 * b], v[(3 * b + 5) % 15], v[(3 * b + 10) % 15]};
      dft<3>(column);
      static_for<3>([&](auto a) { row[a][b] = column[a]; });
    });
    static_for<3>([&](auto c) {
      dft<5>(row[c]);
      static_for<5>([&](auto d) { v[(10 * c + 6 * d) % 15] = row[c][d]; });
    });
  }
}

// --- tables ----------------------------------------------------------------------------------------------------------

// A block's tables begin with the roots that combine bins k and N - k, e^(-2 pi i k / n_fft) for k up to N / 2, half of
// what a last pass of radix 2 would use; then come the twiddles of pass 1, 2, .. in the order in which they are read.
constexpr int fft_tables(int half, int first_radix) { return half - first_radix + half / 2 + 1; }

// body(place, m, n): place's value is e^(-2 pi i m / n).
template <class Body>
constexpr void for_each_root(const FftPlan& plan, Body body) {
  int place = 0;
  for (int k = 0; k <= plan.half / 2; ++k) body(place++, k, 2 * plan.half);
  for (int pass = 1; pass < plan.passes; ++pass) {
    for (int r = 1; r < plan.radix[pass]; ++r) {
      for (int k = 0; k < plan.span[pass]; ++k) body(place++, r * k, plan.span[pass] * plan.radix[pass]);
    }
  }
}

// e^(-2 pi i m / n) by Taylor's series around the nearest quarter of a turn, for the compiler to work out.
constexpr Complex<double> root_of_unity(int m, int n) {
  const int quarter = (4 * m + n / 2) / n;
  const double x = 6.283185307179586477 * (4 * m - quarter * n) / (4.0 * n);
  double cosine = 1, sine = x, even = 1, odd = x;
  for (int i = 2; i < 24; i += 2) {
    even *= -x * x / (i * (i - 1));
    odd *= -x * x / (i * (i + 1));
    cosine += even;
    sine += odd;
  }
  const double re[4] = {cosine, -sine, -cosine, sine}, im[4] = {sine, cosine, -sine, -cosine};
  return {re[quarter % 4], -im[quarter % 4]};
}

template <class T, int kSize>
struct FftTable {
  Complex<T> value[fft_tables(kSize / 2, make_fft_plan(kSize, sizeof(T) == 4).radix[0])];
  constexpr FftTable() : value{} {
    for_each_root(make_fft_plan(kSize, sizeof(T) == 4), [this](int place, int m, int n) {
      const Complex<double> root = root_of_unity(m, n);
      value[place] = {T(root.re), T(root.im)};
    });
  }
};
// In the GPU's memory, once: 700 sines and cosines in float64 are much for every block, on small GPUs above all.
template <class T, int kSize>
__device__ const FftTable<T, kSize> kFftTable{};

// --- the FFT of a team -----------------------------------------------------------------------------------------------

// kSize: n_fft as a constant, or 0.
template <class T, int kSize>
class Fft {
 public:
  // Fills the tables.
  __device__ __forceinline__ Fft(const FftPlan& plan, Complex<T>* shared)
      : plan_(plan),
        roots_(shared),
        twiddles_(shared + half() / 2 + 1),
        buffers_(shared + fft_tables(half(), first_radix())) {
    const int thread = int(threadIdx.y) * team() + int(threadIdx.x);
    if constexpr (kSize != 0) {
      constexpr int count = sizeof(FftTable<T, kSize>) / sizeof(Complex<T>);
      for (int i = thread; i < count; i += threads()) shared[i] = kFftTable<T, kSize>.value[i];
    } else {
      Complex<T>* table = twiddles_;
      for (int pass = 1; pass <= plan.passes; ++pass) {
        const bool roots = pass == plan.passes;
        const int span = roots ? plan.half : plan.span[pass], radix = roots ? 2 : plan.radix[pass];
        const int count = roots ? span / 2 + 1 : (radix - 1) * span;
        for (int i = thread; i < count; i += threads()) {
          double s, c;
          sincospi(2.0 * ((i / span + 1) * (i % span)) / (span * radix), &s, &c);
          (roots ? roots_ : table)[i] = {T(c), T(-s)};
        }
        table += count;
      }
    }
    __syncthreads();
  }

  static constexpr int kTeams = make_fft_plan(kSize ? kSize : 2, sizeof(T) == 4).teams;  // of a block

  __device__ __forceinline__ int half() const { return kSize ? kPlan.half : plan_.half; }
  __device__ __forceinline__ int team() const { return kSize ? kPlan.team : int(blockDim.x); }
  // The thread's place in its team. The compiler is not told that it is below 32: without the mask, passes of 32 DFTs
  // keep their tests for threads that have none.
  __device__ __forceinline__ int lane() const { return kSize ? int(threadIdx.x) & (kPlan.team - 1) : int(threadIdx.x); }
  // Of a block, a power of two.
  __device__ __forceinline__ int threads() const {
    return kSize ? kPlan.team * kPlan.teams : int(blockDim.x * blockDim.y);
  }

  // The team's buffer, or that of team `index`.
  __device__ __forceinline__ Complex<T>* buffer() const { return buffer(int(threadIdx.y)); }
  __device__ __forceinline__ Complex<T>* buffer(int index) const {
    return buffers_ + index * (kSize ? kPlan.buffer : plan_.buffer);
  }
  // Shared memory after the FFT's own.
  __device__ __forceinline__ T* rest() const { return reinterpret_cast<T*>(buffer(plan_.teams)); }

  __device__ __forceinline__ void team_sync() const {
    if (team() == 32) {
      __syncwarp();
    } else {
      __syncthreads();
    }
  }

  // Real FFT of a frame's samples (source.direct: pairs source.pair(0 .. N - 1), else source(0 .. n_fft - 1), see
  // FrameSource); emit(k, twice the bin) receives each bin 0 .. N once. Bins k and N - k come from the thread that
  // alone reads entries k and N - k of the buffer, so emit may overwrite them.
  template <class Source, class Emit>
  __device__ __forceinline__ void forward(const Source& source, Emit emit) const {
    const int half = this->half();
    Complex<T>* z = buffer();
    team_sync();  // the buffer's last readers
    if (!source.direct) {
      for (int i = int(threadIdx.x); i < 2 * half; i += team()) reinterpret_cast<T*>(z)[i] = source(i);
    }
    transform([&](auto& v, int j, int stride) {
      if (source.direct && source.covered) {
#pragma unroll
        for (int r = 0; r < int(sizeof(v) / sizeof(v[0])); ++r) v[r] = source.covered_pair(j + r * stride);
      } else if (source.direct) {
#pragma unroll
        for (int r = 0; r < int(sizeof(v) / sizeof(v[0])); ++r) v[r] = source.pair(j + r * stride);
      } else {
#pragma unroll
        for (int r = 0; r < int(sizeof(v) / sizeof(v[0])); ++r) v[r] = z[j + r * stride];
      }
    });
#pragma unroll(kSize ? 4 : 1)
    for (int k = lane(); k <= half / 2; k += team()) {
      const Complex<T> a = z[k], b = conj(z[k == 0 ? 0 : half - k]), even = a + b;
      const Complex<T> odd = roots_[k] * times_minus_i(a - b);
      emit(k, even + odd);
      if (2 * k != half) emit(half - k, conj(even - odd));
    }
  }

  // Inverse real FFT of the bins fetch(0 .. N), times `scale`: *sample(team, i) is then
  //   scale (Re X[0] + (-1)^i Re X[N] + 2 Re sum_{0 < k < N} X[k] e^(2 pi i k i / n_fft)).
  // fetch(k) and fetch(N - k) may read those entries of the buffer, if forward's emit wrote them.
  template <class Fetch>
  __device__ __forceinline__ void inverse(Fetch fetch, T scale) const {
    const int half = this->half();
    Complex<T>* z = buffer();
#pragma unroll(kSize ? 2 : 1)
    for (int k = lane(); k <= half / 2; k += team()) {
      Complex<T> a = fetch(k), b = conj(fetch(half - k));
      if (k == 0) a.im = b.im = 0;
      const Complex<T> even = a + b, odd = conj(roots_[k]) * (a - b);
      // Z[k] = even + i odd and Z[N - k] = conj(even) + i conj(odd), each with its parts swapped; nobody reads Z[N].
      z[k] = {scale * (even.im + odd.re), scale * (even.re - odd.im)};
      z[half - k] = {scale * (odd.re - even.im), scale * (even.re + odd.im)};
    }
    transform([&](auto& v, int j, int stride) {
#pragma unroll
      for (int r = 0; r < int(sizeof(v) / sizeof(v[0])); ++r) v[r] = z[j + r * stride];
    });
  }

  // Where sample i of team `index` lies; samples an even distance away lie that far from it.
  __device__ __forceinline__ const T* sample(int index, int i) const {
    return reinterpret_cast<const T*>(buffer(index)) + (i ^ 1);
  }

 private:
  static constexpr FftPlan kPlan = make_fft_plan(kSize ? kSize : 2, sizeof(T) == 4);

  __device__ __forceinline__ int first_radix() const {
    constexpr int radix = kPlan.radix[0];
    return kSize ? radix : plan_.radix[0];
  }

  // Complex FFT; read(values, j, stride) gets the first pass's values j, j + stride, .. in natural order.
  template <class Read>
  __device__ __forceinline__ void transform(Read read) const {
    team_sync();
    const Complex<T>* table = twiddles_;
    if constexpr (kSize != 0) {
      constexpr int first_pad = kPlan.pad[0];
      pass<kPlan.radix[0], true>(1, 0, first_pad, 0, table, read);
      static_for<kPlan.passes - 1>([&](auto before) {
        constexpr int i = before + 1, radix = kPlan.radix[i], span = kPlan.span[i];
        constexpr int gap = kPlan.pad[before], pad = kPlan.pad[i];
        constexpr unsigned reciprocal = kPlan.reciprocal[i];
        pass<radix, false>(span, gap, pad, reciprocal, table, read);
        table += (radix - 1) * span;
      });
    } else {
      any_pass<true>(0, table, read);
#pragma unroll 1
      for (int i = 1; i < plan_.passes; ++i) {
        any_pass<false>(i, table, read);
        table += (plan_.radix[i] - 1) * plan_.span[i];
      }
    }
  }

  template <bool kFirst, class Read>
  __device__ __forceinline__ void any_pass(int i, const Complex<T>* table, Read read) const {
    const int span = plan_.span[i], gap = kFirst ? 0 : plan_.pad[i - 1], pad = plan_.pad[i];
    const unsigned reciprocal = plan_.reciprocal[i];
    switch (plan_.radix[i]) {
      case 15:
        return pass<15, kFirst>(span, gap, pad, reciprocal, table, read);
      case 8:
        return pass<8, kFirst>(span, gap, pad, reciprocal, table, read);
      case 5:
        return pass<5, kFirst>(span, gap, pad, reciprocal, table, read);
      case 4:
        return pass<4, kFirst>(span, gap, pad, reciprocal, table, read);
      case 3:
        return pass<3, kFirst>(span, gap, pad, reciprocal, table, read);
      case 2:
        return pass<2, kFirst>(span, gap, pad, reciprocal, table, read);
      default:
        return pass<1, kFirst>(span, gap, pad, reciprocal, table, read);
    }
  }

  // `gap` is the pad of the pass before.
  template <int R, bool kFirst, class Read>
  __device__ __forceinline__ void pass(int span, int gap, int pad, unsigned reciprocal, const Complex<T>* table,
                                       Read read) const {
    constexpr int kDfts = R == 15 ? 1 : R == 1 ? 1 : (kFftPoints + R - 1) / R;  // of a thread
    const int count = half() / R;
    Complex<T>* z = buffer();
    Complex<T> v[kDfts][R];
    int block[kDfts];  // j / span
    // Threads without a DFT of their own repeat the last one and drop it: no branches around the arithmetic.
#pragma unroll
    for (int u = 0; u < kDfts; ++u) {
      const int j = min(lane() + u * team(), count - 1);
      block[u] = kFirst ? j : int((uint64_t(unsigned(j)) * reciprocal) >> 32);
      if constexpr (kFirst) {
        read(v[u], j, count);
      } else {
        const int stride = count + gap * int((uint64_t(unsigned(count)) * reciprocal) >> 32);
#pragma unroll
        for (int r = 0; r < R; ++r) v[u][r] = z[j + gap * block[u] + r * stride];
      }
    }
    team_sync();
#pragma unroll
    for (int u = 0; u < kDfts; ++u) {
      const int j = min(lane() + u * team(), count - 1), k = j - block[u] * span;
      if constexpr (!kFirst) {
#pragma unroll
        for (int r = 1; r < R; ++r) v[u][r] = v[u][r] * table[(r - 1) * span + k];
      }
      dft<R>(v[u]);
      if (lane() + u * team() < count) {
        const int first = block[u] * (R * span + pad) + k;
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

// Bytes at the start of the block's shared memory: tables, then the buffers.
template <class T>
int64_t fft_shared_bytes(const FftPlan& plan) {
  return int64_t(sizeof(Complex<T>)) * (fft_tables(plan.half, plan.radix[0]) + plan.teams * plan.buffer);
}

// What Fft::forward reads: a frame's windowed samples. A struct of its own adds operator()(i), sample i however it
// comes.
template <class T>
struct FrameSource {
  const T* samples;  // of the frame; may lie outside the signal unless direct
  const T* window;
  int window_left, window_length;  // the window is zero before and after
  bool direct;
  bool covered;  // by the window, from end to end: no test per pair

  // `inside`: all samples of the frame, n_fft of them, are the signal's own.
  __device__ __forceinline__ FrameSource(const T* frame, const T* values, int n_fft, int left, int length, bool inside)
      : samples(frame),
        window(values),
        window_left(left),
        window_length(length),
        direct(inside && (left | length) % 2 == 0 &&
               (reinterpret_cast<uintptr_t>(frame) | reinterpret_cast<uintptr_t>(values)) % sizeof(Complex<T>) == 0),
        covered(length == n_fft) {}

  // Samples 2 j and 2 j + 1.
  __device__ __forceinline__ Complex<T> pair(int j) const {
    const int w = 2 * j - window_left;
    return unsigned(w) < unsigned(window_length) ? pair(j, w) : Complex<T>{0, 0};
  }
  __device__ __forceinline__ Complex<T> covered_pair(int j) const { return pair(j, 2 * j); }

 private:
  __device__ __forceinline__ Complex<T> pair(int j, int w) const {
    const Complex<T> a = reinterpret_cast<const Complex<T>*>(samples)[j];
    const Complex<T> b = *reinterpret_cast<const Complex<T>*>(window + w);
    return {a.re * b.re, a.im * b.im};
  }
};

}  // namespace mimo::cuda
