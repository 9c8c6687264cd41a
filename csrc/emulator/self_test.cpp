// Small kernels, some of them wrong on purpose, with which tests/ops/test_emulator.py checks the emulator itself.
#include "emulator/self_test.h"

#include <vector>

#include "cuda/mma.h"

namespace mimo::emulator {
namespace {

// Sum of 0 .. n-1 over a block: shuffles inside warps, shared memory and a barrier across them.
__global__ void block_sum(int* out, bool with_barrier) {
  __shared__ int part[32];
  int value = int(threadIdx.x);
  for (int step = 16; step; step >>= 1) value += __shfl_xor_sync(~0u, value, step);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = value;
  if (with_barrier) __syncthreads();
  if (threadIdx.x == 0) {
    int sum = 0;
    for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) sum += part[warp];
    *out = sum;
  }
  if (with_barrier) __syncthreads();
  part[threadIdx.x / 32] = -1000000;  // what the next launch finds if it reads too early
}

__global__ void half_a_block_waits() {
  if (threadIdx.x < 32) __syncthreads();
  if (threadIdx.x >= 32) __syncwarp(threadIdx.x % 2 ? ~0u : 0x55555555u);
}

__global__ void lane_outside_its_mask(int* out) { *out = __shfl_sync(1u, 7, 0); }

__global__ void device_check(int limit) { MIMO_DEVICE_CHECK(int(threadIdx.x) < limit); }

__global__ void count_up(int* out, bool wait, bool start_next) {
  if (wait) cuda::wait_for_previous_kernel();
  if (start_next) cuda::let_next_kernel_start();
  if (threadIdx.x == 0) ++*out;
}

template <bool kAllowed>
__global__ void last_of_shared(int* out, int count) {
  MIMO_DYNAMIC_SHARED(int, shared);
  shared[count - 1] = 7;
  *out = shared[count - 1];
}

__global__ void vote(int* out) {
  const unsigned votes = __ballot_sync(~0u, threadIdx.x % 3 == 0);
  const int rank = __shfl_up_sync(~0u, int(threadIdx.x), 1);
  if (threadIdx.x == 5) out[0] = int(votes), out[1] = rank;
}

// c[16, 8] = a[16, 16] b[16, 8] of one warp; a row-major, b column-major, both bf16 in shared memory.
__global__ void matrix_product(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c) {
  __shared__ __nv_bfloat16 tile_a[16 * 16], tile_b[8 * 16];
  const int lane = int(threadIdx.x);
  cuda::cp_async_16(tile_a + lane * 8, a + lane * 8);
  if (lane < 16) cuda::cp_async_16(tile_b + lane * 8, b + lane * 8);
  cuda::cp_async_commit();
  cuda::cp_async_wait<0>();
  __syncthreads();
  uint32_t fragment_a[4], fragment_b[4];
  cuda::ldmatrix_x4(fragment_a, tile_a + lane % 16 * 16 + lane / 16 * 8);
  cuda::ldmatrix_x4(fragment_b, tile_b + lane % 8 * 16 + lane / 8 % 2 * 8);
  float sum[4] = {};
  cuda::mma_bf16(sum, fragment_a, fragment_b[0], fragment_b[1]);
  for (int i = 0; i < 4; ++i) c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sum[i];
}

std::string outcome(const std::string& result) {
  const char* error = launch_error();
  return error ? std::string("error: ") + error : result;
}

}  // namespace

std::string self_test(const std::string& name) {
  int out[2] = {};
  if (name == "block_sum" || name == "missing_barrier") {
    MIMO_LAUNCH(1, 256, 0, nullptr, block_sum)(out, name == "block_sum");
    return outcome(std::to_string(out[0]));
  }
  if (name == "deadlock") {
    MIMO_LAUNCH(1, 64, 0, nullptr, half_a_block_waits)();
    return outcome("finished");
  }
  if (name == "lane_outside_its_mask") {
    MIMO_LAUNCH(1, 32, 0, nullptr, lane_outside_its_mask)(out);
    return outcome("finished");
  }
  if (name == "device_check") {
    MIMO_LAUNCH(2, dim3(4, 2), 0, nullptr, device_check)(3);
    return outcome("finished");
  }
  if (name == "too_many_threads") {
    MIMO_LAUNCH(1, 2048, 0, nullptr, block_sum)(out, true);
    return outcome("finished");
  }
  if (name == "shared_allowed" || name == "shared_not_allowed") {
    constexpr int kCount = 60 * 1024 / 4;
    MIMO_ALLOW_SHARED(last_of_shared<true>);
    if (name == "shared_allowed") {
      MIMO_LAUNCH(1, 1, kCount * 4, nullptr, last_of_shared<true>)(out, kCount);
    } else {
      MIMO_LAUNCH(1, 1, kCount * 4, nullptr, last_of_shared<false>)(out, kCount);
    }
    return outcome(std::to_string(out[0]));
  }
  if (name == "early_launch" || name == "no_wait" || name == "next_before_wait") {
    MIMO_LAUNCH(1, 32, 0, nullptr, count_up)(out, false, true);  // a plain launch has nothing to wait for
    MIMO_LAUNCH_EARLY(1, 32, 0, nullptr, count_up)(out, name == "early_launch", name != "no_wait");
    return outcome(std::to_string(out[0]));
  }
  if (name == "vote") {
    MIMO_LAUNCH(1, 32, 0, nullptr, vote)(out);
    return outcome(std::to_string(unsigned(out[0])) + " " + std::to_string(out[1]));
  }
  if (name == "matrix_product") {
    std::vector<__nv_bfloat16> a(16 * 16), b(16 * 8);
    std::vector<float> c(16 * 8);
    const auto value = [](int i, int j) { return float((i * 7 + j * 3) % 11 - 5); };
    for (int i = 0; i < 16; ++i) {
      for (int k = 0; k < 16; ++k) a[size_t(i * 16 + k)] = __float2bfloat16(value(i, k));
    }
    for (int j = 0; j < 8; ++j) {
      for (int k = 0; k < 16; ++k) b[size_t(j * 16 + k)] = __float2bfloat16(value(k, j));
    }
    MIMO_LAUNCH(1, 32, 0, nullptr, matrix_product)(a.data(), b.data(), c.data());
    for (int i = 0; i < 16; ++i) {
      for (int j = 0; j < 8; ++j) {
        float sum = 0;
        for (int k = 0; k < 16; ++k) sum += value(i, k) * value(k, j);
        if (c[size_t(i * 8 + j)] != sum) return "wrong at " + std::to_string(i) + ", " + std::to_string(j);
      }
    }
    return outcome("right");
  }
  return "no such test";
}

}  // namespace mimo::emulator
