// What CPU kernels are written in: each cpu/X.cpp is compiled once per instruction set (CMake defines MIMO_ISA as
// baseline, avx2 or avx512 and sets the flags) and chosen at run time (common/cpu_dispatch.h).
//
// Rules for cpu/X.cpp:
//  - everything lives in `namespace mimo::cpu::MIMO_ISA`, so that each copy has names of its own;
//  - no standard containers or other templates with linkage outside that namespace: the linker keeps one copy of an
//    inline function, and that copy might hold instructions the machine lacks (cmake/check_isa_objects.py enforces it);
//  - Vec<T> is a GCC/Clang vector: + - * / < == ?: work lane by lane, a * b + c becomes a fused multiply-add.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__SSE4_1__)
#pragma GCC diagnostic push
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC's own header initialises "undefined" vectors with themselves
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#include "mimo/parallel.h"

#if !defined(MIMO_ISA)
#error "compile cpu/*.cpp through CMake, which defines MIMO_ISA"
#endif

namespace mimo::cpu::MIMO_ISA {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

template <class T>
struct VecOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Vec = typename VecOf<T>::type;

template <class T>
inline constexpr int kLanes = kVectorBytes / int(sizeof(T));

template <class T>
inline __attribute__((always_inline)) Vec<T> load(const T* p) {
  Vec<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
inline __attribute__((always_inline)) void store(T* p, Vec<T> v) {
  std::memcpy(p, &v, sizeof v);
}
template <class T>
inline __attribute__((always_inline)) Vec<T> broadcast(T x) {
  return x - Vec<T>{};
}

// Whether any lane of a comparison's result is true.
inline __attribute__((always_inline)) bool any(Vec<int32_t> mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__)
  return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#elif defined(__SSE4_1__)
  return !_mm_testz_si128((__m128i)mask, (__m128i)mask);
#else
  for (int i = 0; i < kLanes<int32_t>; ++i) {
    if (mask[i]) return true;
  }
  return false;
#endif
}

// Uninitialised scratch memory, aligned to a cache line, freed with the object.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count) : data_(static_cast<T*>(allocate_aligned(size_t(count) * sizeof(T)))) {}
  ~Scratch() { free_aligned(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* get() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  T* data_;
};

// body(begin, end) over [0, count) in pieces of at least `grain`, on all threads.
template <class F>
inline void parallel_for(int64_t count, int64_t grain, F&& body) {
  using Body = std::remove_reference_t<F>;
  parallel_pieces(
      count, grain, [](void* context, int64_t begin, int64_t end) { (*static_cast<Body*>(context))(begin, end); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace mimo::cpu::MIMO_ISA
