// Tensor-core and asynchronous-copy instructions (sm_80 and later) behind small functions: PTX under nvcc, their
// definition over the emulator elsewhere. Layouts are those of the PTX manual ("Matrix fragments for mma.m16n8k16").
#pragma once
#include <cstring>
#include <type_traits>

#include "cuda/launch.h"

#if !defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace mimo::cuda {

// Two numbers as sums of two bfloat16, to 2^-17 of themselves: pairs of the high parts and of the low parts.
__device__ __forceinline__ void split_pair(float a, float b, uint32_t& high, uint32_t& low) {
  const __nv_bfloat162 top = __floats2bfloat162_rn(a, b);
  std::memcpy(&high, &top, sizeof high);
  const __nv_bfloat162 rest =
      __floats2bfloat162_rn(a - __uint_as_float(high << 16), b - __uint_as_float(high & 0xffff0000u));
  std::memcpy(&low, &rest, sizeof low);
}

#if defined(__CUDACC__)

__device__ __forceinline__ uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

// Four 8x8 matrices of 16-bit elements: lane 8 i + j gives the address of row j of matrix i; lane l receives elements
// 2 (l % 4) and 2 (l % 4) + 1 of row l / 4 of each.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(shared)));
}

// The same, of the transposed matrices: lane l receives rows 2 (l % 4) and 2 (l % 4) + 1 of column l / 4.
__device__ __forceinline__ void ldmatrix_x4_transposed(uint32_t (&r)[4], const void* shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(shared)));
}

// c[16, 8] += a[16, 16] b[16, 8], bf16 operands, float32 sums.
__device__ __forceinline__ void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void mma_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void cp_async_16(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global));
}
// Zeros instead of what lies at `global` unless `there`.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(there ? 16 : 0));
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

#else

// Element (row, column) of matrix i, from the address that lane 8 i + row gave.
inline uint16_t matrix_element(emulator::LaneTable table, int i, int row, int column) {
  const auto* from = emulator::from_lane<const unsigned char*>(table, 8 * i + row);
  uint16_t element;
  std::memcpy(&element, from + 2 * column, sizeof element);
  return element;
}

inline void load_matrices(uint32_t (&r)[4], const void* shared, bool transposed) {
  const auto table = emulator::exchange(~0u, shared);
  const int lane = emulator::here().lane, major = lane / 4, minor = lane % 4 * 2;
  uint32_t out[4];
  for (int i = 0; i < 4; ++i) {
    const auto at = [&](int m) {
      return uint32_t(transposed ? matrix_element(table, i, m, major) : matrix_element(table, i, major, m));
    };
    out[i] = at(minor) | at(minor + 1) << 16;
  }
  __syncwarp();
  std::memcpy(r, out, sizeof out);
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void* shared) { load_matrices(r, shared, false); }
inline void ldmatrix_x4_transposed(uint32_t (&r)[4], const void* shared) { load_matrices(r, shared, true); }

// half_of(pair, i): element i of a pair as float32.
template <class HalfOf>
void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, HalfOf half_of) {
  struct Four {
    uint32_t v[4];
  };
  const int lane = emulator::here().lane, group = lane / 4, column = lane % 4;
  float rows[2][16];  // rows `group` and `group + 8` of a
  auto table = emulator::exchange(~0u, Four{{a[0], a[1], a[2], a[3]}});
  for (int q = 0; q < 4; ++q) {
    const Four v = emulator::from_lane<Four>(table, group * 4 + q);
    for (int h = 0; h < 2; ++h) {
      for (int half = 0; half < 2; ++half) {  // k 0..7 and 8..15
        rows[0][8 * half + 2 * q + h] = half_of(v.v[2 * half], h);
        rows[1][8 * half + 2 * q + h] = half_of(v.v[2 * half + 1], h);
      }
    }
  }
  table = emulator::exchange(~0u, Four{{b0, b1, 0, 0}});
  for (int j = 0; j < 2; ++j) {
    for (int q = 0; q < 4; ++q) {
      const Four v = emulator::from_lane<Four>(table, (2 * column + j) * 4 + q);
      for (int h = 0; h < 2; ++h) {
        for (int row = 0; row < 2; ++row) {
          c[2 * row + j] += rows[row][2 * q + h] * half_of(v.v[0], h) + rows[row][8 + 2 * q + h] * half_of(v.v[1], h);
        }
      }
    }
  }
}

inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  multiply_add(c, a, b0, b1,
               [](uint32_t pair, int high) { return __uint_as_float(high ? pair & 0xffff0000u : pair << 16); });
}
inline void mma_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  multiply_add(c, a, b0, b1,
               [](uint32_t pair, int high) { return __half2float(__half_raw{uint16_t(high ? pair >> 16 : pair)}); });
}

inline void cp_async_16(void* shared, const void* global) { std::memcpy(shared, global, 16); }
inline void cp_async_16(void* shared, const void* global, bool there) {
  if (there) {
    std::memcpy(shared, global, 16);
  } else {
    std::memset(shared, 0, 16);
  }
}
inline void cp_async_commit() {}
template <int kPending>
inline void cp_async_wait() {}

#endif

// Two numbers as a pair of half-precision elements, the first in the low half.
template <class S>
__device__ __forceinline__ uint32_t pair_of(float a, float b) {
  uint32_t bits;
  if constexpr (std::is_same_v<S, __nv_bfloat16>) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(a, b);
    std::memcpy(&bits, &pair, sizeof bits);
  } else {
    const __half2 pair = __floats2half2_rn(a, b);
    std::memcpy(&bits, &pair, sizeof bits);
  }
  return bits;
}

// mma_bf16 or mma_f16, by the type of the elements.
template <class S>
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (std::is_same_v<S, __nv_bfloat16>) {
    mma_bf16(c, a, b0, b1);
  } else {
    mma_f16(c, a, b0, b1);
  }
}

}  // namespace mimo::cuda
