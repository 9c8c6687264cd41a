// exp, log, sincos and erf on vectors: a few units in the last place in float32, the C library lane by lane in float64
// (erf: float32 only).
#pragma once
#include <cmath>

#include "cpu/isa.h"

namespace mimo::cpu::MIMO_ISA {

template <class To, class From>
inline __attribute__((always_inline)) To bits(From v) {
  static_assert(sizeof(To) == sizeof(From));
  To out;
  std::memcpy(&out, &v, sizeof v);
  return out;
}

// Nearest integer (ties to even) for |x| < 2^22: adding 1.5 * 2^23 pushes the fraction out of the mantissa.
inline Vec<float> round_nearest(Vec<float> x) {
  const float magic = 12582912.0f;
  Vec<float> shifted = x + magic;
  __asm__("" : "+x"(shifted));  // keeps the compiler from folding the two additions
  return shifted - magic;
}

// e^x = 2^n e^r with |r| <= ln 2 / 2 and a degree-6 polynomial; 0 below -87.3, inf above 88.7.
inline Vec<float> exp(Vec<float> x) {
  const Vec<float> low = broadcast(-87.33654f), high = broadcast(88.72283f);
  const auto under = x<low, over = x> high;
  const Vec<float> inside = under ? low : (over ? high : x);
  const Vec<float> n = round_nearest(inside * 1.44269504f);
  const Vec<float> r = (inside - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec<float> p = broadcast(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  // Two halves of the power of two: n may be 128, which one exponent field cannot hold.
  const Vec<int32_t> whole = __builtin_convertvector(n, Vec<int32_t>), half = whole >> 1;
  const auto power = [](Vec<int32_t> e) { return bits<Vec<float>>((e + 127) << 23); };
  const Vec<float> result = p * power(half) * power(whole - half);
  const Vec<float> out = under ? Vec<float>{} : (over ? broadcast(__builtin_inff()) : result);
  return x != x ? x : out;  // NaN stays NaN
}

// e^x for x that is hardly above 0, as differences from a maximum are: with AVX-512 half the work of exp, the same
// polynomial; 0 for -inf, NaN stays NaN.
inline Vec<float> exp_below(Vec<float> x) {
#if defined(__AVX512F__)
  const __m512 inside = _mm512_max_ps(_mm512_set1_ps(-150.0f), (__m512)x);
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(inside, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT);
  const Vec<float> whole = (Vec<float>)n, r = ((Vec<float>)inside - whole * 0.693359375f) + whole * 2.12194440e-4f;
  Vec<float> p = broadcast(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  return (Vec<float>)_mm512_scalef_ps((__m512)p, n);
#else
  return exp(x);
#endif
}

// Natural logarithm of normal positive numbers: mantissa in [sqrt(1/2), sqrt(2)), degree-8 polynomial.
inline Vec<float> log(Vec<float> x) {
  Vec<int32_t> raw = bits<Vec<int32_t>>(x);
  Vec<int32_t> exponent = (raw >> 23) - 126;
  Vec<float> m = bits<Vec<float>>((raw & 0x007fffff) | 0x3f000000);  // [1/2, 1)
  const auto small = m < 0.707106781f;
  exponent = exponent + (small ? Vec<int32_t>{} - 1 : Vec<int32_t>{});
  m = (small ? m + m : m) - 1.0f;
  const Vec<float> z = m * m;
  Vec<float> p = broadcast(7.0376836292e-2f);
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  const Vec<float> e = __builtin_convertvector(exponent, Vec<float>);
  Vec<float> y = p * m * z + e * -2.12194440e-4f - 0.5f * z;
  return m + y + e * 0.693359375f;
}

// Sine and cosine: reduction by pi / 2 in three parts up to |x| = 8192, the C library beyond.
inline void sincos(Vec<float> x, Vec<float>& sine, Vec<float>& cosine) {
  const Vec<float> n = round_nearest(x * 0.636619772f);
  const Vec<float> r = ((x - n * 1.5703125f) - n * 4.837512969970703125e-4f) - n * 7.549789948768648e-8f;
  const Vec<float> z = r * r;
  const Vec<float> s = r + r * z * (-1.6666654611e-1f + z * (8.3321608736e-3f + z * -1.9515295891e-4f));
  const Vec<float> c =
      1.0f - 0.5f * z + z * z * (4.166664568298827e-2f + z * (-1.388731625493765e-3f + z * 2.443315711809948e-5f));
  const Vec<int32_t> quadrant = __builtin_convertvector(n, Vec<int32_t>);
  const auto swap = (quadrant & 1) != 0;
  const Vec<float> s1 = swap ? c : s, c1 = swap ? s : c;
  sine = (quadrant & 2) != 0 ? -s1 : s1;
  cosine = ((quadrant + 1) & 2) != 0 ? -c1 : c1;
  const Vec<int32_t> far = ~((x < 8192.0f) & (x > -8192.0f));  // also NaN and infinities
  if (!any(far)) return;
  for (int i = 0; i < kLanes<float>; ++i) {
    if (far[i]) {
      sine[i] = ::sinf(x[i]);
      cosine[i] = ::cosf(x[i]);
    }
  }
}

// Error function: an odd rational function up to |x| = 3.83, where it is 1 but for rounding; errors below 4e-7.
inline Vec<float> erf(Vec<float> x) {
  const Vec<float> most = broadcast(3.832506856900711f);
  const Vec<float> inside = x > most ? most : (x < -most ? -most : x);
  const Vec<float> z = inside * inside;
  Vec<float> p = broadcast(0.00022905065861350646f);
  p = p * z + 0.0034082910107109506f;
  p = p * z + 0.050955695062380861f;
  p = p * z + 0.18520832239976145f;
  p = p * z + 1.128379143519084f;
  Vec<float> q = broadcast(-1.1791602954361697e-7f);
  q = q * z + 0.000023547966471313185f;
  q = q * z + 0.0010179625278914885f;
  q = q * z + 0.014070470171167667f;
  q = q * z + 0.11098505178285362f;
  q = q * z + 0.49746925110067538f;
  q = q * z + 1.0f;
  return inside * p / q;
}

inline Vec<double> exp(Vec<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = ::exp(x[i]);
  return x;
}
inline Vec<double> exp_below(Vec<double> x) { return exp(x); }
inline Vec<double> log(Vec<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = ::log(x[i]);
  return x;
}
inline void sincos(Vec<double> x, Vec<double>& sine, Vec<double>& cosine) {
  for (int i = 0; i < kLanes<double>; ++i) sine[i] = ::sin(x[i]), cosine[i] = ::cos(x[i]);
}

}  // namespace mimo::cpu::MIMO_ISA
