// Real FFTs of many frames at once, one frame per vector lane.
//
// A buffer holds slots of kLanes<T> numbers: slot j is sample j of all frames, and slots 2k and 2k + 1 are the real and
// imaginary part of bin k. Since lanes never mix, a radix-r butterfly is plain arithmetic on vectors with twiddles that
// are the same for all lanes: no shuffles at any size, and the same speed for 960 as for 1024.
//
// A transform of n = 2m real samples is a complex one of m points z[j] = x[2j] + i x[2j + 1] (which is how the slots
// lie already), then a split into the m + 1 bins of x. The complex transform is Stockham's: stage by stage from one
// buffer to the other, results in order without bit reversal.
#pragma once
#include "cpu/fft_plan.h"
#include "cpu/isa.h"

namespace mimo::cpu::MIMO_ISA {

template <class T>
struct Complex {
  Vec<T> re, im;
};

#define MIMO_INLINE inline __attribute__((always_inline))

template <class T>
MIMO_INLINE Complex<T> operator+(Complex<T> a, Complex<T> b) {
  return {a.re + b.re, a.im + b.im};
}
template <class T>
MIMO_INLINE Complex<T> operator-(Complex<T> a, Complex<T> b) {
  return {a.re - b.re, a.im - b.im};
}
template <class T>
MIMO_INLINE Complex<T> scale(Complex<T> a, T b) {
  return {a.re * b, a.im * b};
}
template <class T>
MIMO_INLINE Complex<T> conj(Complex<T> a) {
  return {a.re, -a.im};
}
template <class T>
MIMO_INLINE Complex<T> times_i(Complex<T> a) {
  return {-a.im, a.re};
}
template <class T>
MIMO_INLINE Complex<T> times_minus_i(Complex<T> a) {
  return {a.im, -a.re};
}
template <class T>
MIMO_INLINE Complex<T> multiply(Complex<T> a, T re, T im) {
  return {a.re * re - a.im * im, a.re * im + a.im * re};
}
template <class T>
MIMO_INLINE Complex<T> load_point(const T* buffer, int64_t k) {
  const T* p = buffer + 2 * kLanes<T> * k;
  return {load(p), load(p + kLanes<T>)};
}
template <class T>
MIMO_INLINE void store_point(T* buffer, int64_t k, Complex<T> z) {
  T* p = buffer + 2 * kLanes<T> * k;
  store<T>(p, z.re);
  store<T>(p + kLanes<T>, z.im);
}

// Discrete Fourier transforms of 2 .. 8 points, e^(-2 pi i / R).
template <class T>
MIMO_INLINE void butterfly(Complex<T> (&a)[2]) {
  const Complex<T> sum = a[0] + a[1];
  a[1] = a[0] - a[1];
  a[0] = sum;
}
template <class T>
MIMO_INLINE void butterfly(Complex<T> (&a)[3]) {
  const T sin60 = T(0.866025403784438646763723170752936183);
  const Complex<T> sum = a[1] + a[2], turned = times_minus_i(scale(a[1] - a[2], sin60));
  const Complex<T> middle = a[0] - scale(sum, T(0.5));
  a[0] = a[0] + sum;
  a[1] = middle + turned;
  a[2] = middle - turned;
}
template <class T>
MIMO_INLINE void butterfly(Complex<T> (&a)[4]) {
  const Complex<T> s02 = a[0] + a[2], d02 = a[0] - a[2], s13 = a[1] + a[3], d13 = times_minus_i(a[1] - a[3]);
  a[0] = s02 + s13;
  a[1] = d02 + d13;
  a[2] = s02 - s13;
  a[3] = d02 - d13;
}
template <class T>
MIMO_INLINE void butterfly(Complex<T> (&a)[5]) {
  const T c1 = T(0.309016994374947424102293417182819059), c2 = T(-0.809016994374947424102293417182819059);
  const T s1 = T(0.951056516295153572116439333379382143), s2 = T(0.587785252292473129168705954639072769);
  const Complex<T> p1 = a[1] + a[4], m1 = a[1] - a[4], p2 = a[2] + a[3], m2 = a[2] - a[3];
  const Complex<T> r1 = a[0] + scale(p1, c1) + scale(p2, c2), r2 = a[0] + scale(p1, c2) + scale(p2, c1);
  const Complex<T> i1 = times_minus_i(scale(m1, s1) + scale(m2, s2)), i2 = times_minus_i(scale(m1, s2) - scale(m2, s1));
  a[0] = a[0] + p1 + p2;
  a[1] = r1 + i1;
  a[2] = r2 + i2;
  a[3] = r2 - i2;
  a[4] = r1 - i1;
}
template <class T>
MIMO_INLINE void butterfly(Complex<T> (&a)[8]) {
  const T half = T(0.707106781186547524400844362104849039);
  Complex<T> even[4] = {a[0], a[2], a[4], a[6]}, odd[4] = {a[1], a[3], a[5], a[7]};
  butterfly(even);
  butterfly(odd);
  odd[1] = scale<T>({odd[1].re + odd[1].im, odd[1].im - odd[1].re}, half);
  odd[2] = times_minus_i(odd[2]);
  odd[3] = scale<T>({odd[3].im - odd[3].re, -odd[3].re - odd[3].im}, half);
  for (int k = 0; k < 4; ++k) {
    a[k] = even[k] + odd[k];
    a[k + 4] = even[k] - odd[k];
  }
}

// One Stockham stage: `done` transforms are interleaved, each of R * rest points.
template <class T, int R>
inline void fft_stage(const T* in, T* out, int rest, int done, const T* twiddles) {
  for (int p = 0; p < rest; ++p, twiddles += 2 * (R - 1)) {
    for (int q = 0; q < done; ++q) {
      Complex<T> a[R];
#pragma GCC unroll 8
      for (int k = 0; k < R; ++k) a[k] = load_point(in, q + int64_t(done) * (p + rest * k));
      butterfly(a);
      store_point(out, q + int64_t(done) * R * p, a[0]);
#pragma GCC unroll 8
      for (int k = 1; k < R; ++k) {
        // The last stage's twiddles are all 1.
        const Complex<T> turned = rest == 1 ? a[k] : multiply(a[k], twiddles[2 * k - 2], twiddles[2 * k - 1]);
        store_point(out, q + int64_t(done) * (R * p + k), turned);
      }
    }
  }
}

// The m-point complex transform of buffer `a`; `b` is scratch. Returns the one that holds the result.
template <class T>
inline T* fft(const FftPlan<T>& plan, T* a, T* b) {
  int left = plan.n_fft / 2, done = 1;
  for (int i = 0; i < plan.stages; ++i) {
    const int radix = plan.radix[i];
    left /= radix;
    switch (radix) {
      case 2:
        fft_stage<T, 2>(a, b, left, done, plan.twiddles[i]);
        break;
      case 3:
        fft_stage<T, 3>(a, b, left, done, plan.twiddles[i]);
        break;
      case 4:
        fft_stage<T, 4>(a, b, left, done, plan.twiddles[i]);
        break;
      case 5:
        fft_stage<T, 5>(a, b, left, done, plan.twiddles[i]);
        break;
      default:
        fft_stage<T, 8>(a, b, left, done, plan.twiddles[i]);
    }
    done *= radix;
    T* const swap = a;
    a = b;
    b = swap;
  }
  return a;
}

// n_fft samples in `a` -> n_fft / 2 + 1 bins in the returned buffer (a or b, both n_fft + 2 slots).
template <class T>
inline T* rfft(const FftPlan<T>& plan, T* a, T* b) {
  const int m = plan.n_fft / 2;
  T* z = fft(plan, a, b);
  const Complex<T> first = load_point(z, 0);
  // In place: bins k and m - k come from points k and m - k.
  store_point<T>(z, 0, {first.re + first.im, Vec<T>{}});
  store_point<T>(z, m, {first.re - first.im, Vec<T>{}});
  for (int k = 1; k <= m / 2; ++k) {
    const Complex<T> x = load_point(z, k), y = conj(load_point(z, m - k));
    const Complex<T> even = scale(x + y, T(0.5));
    const Complex<T> odd = multiply(times_minus_i(scale(x - y, T(0.5))), plan.split[2 * k], plan.split[2 * k + 1]);
    store_point(z, k, even + odd);
    store_point(z, m - k, conj(even - odd));
  }
  return z;
}

// n_fft / 2 + 1 bins in `a` -> sum over all n_fft bins of a real signal's spectrum, that is n_fft times the inverse
// transform; the odd samples come out NEGATED (the transform is the conjugate of the forward one), for the window that
// follows to undo. Bins 0 and n_fft / 2 count as real.
template <class T>
inline T* irfft(const FftPlan<T>& plan, T* a, T* b) {
  const int m = plan.n_fft / 2;
  const Vec<T> first = load_point(a, 0).re, last = load_point(a, m).re;
  store_point<T>(a, 0, {first + last, last - first});
  for (int k = 1; k <= m / 2; ++k) {
    const Complex<T> x = load_point(a, k), y = conj(load_point(a, m - k));
    const Complex<T> even = x + y;
    const Complex<T> odd = times_i(multiply(x - y, plan.split[2 * k], -plan.split[2 * k + 1]));
    store_point(a, k, conj(even + odd));
    store_point(a, m - k, even - odd);
  }
  return fft(plan, a, b);
}

}  // namespace mimo::cpu::MIMO_ISA
