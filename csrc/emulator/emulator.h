// Runs CUDA kernels on the CPU, for tests on machines without a GPU.
//
// The same .cu file that nvcc compiles is compiled by the host compiler over this header (see cuda/launch.h). A launch
// runs one block at a time on the calling thread; every CUDA thread is a fibre (a stack of its own, switched by hand),
// so __syncthreads, warp shuffles and ballots work as on the device: a fibre that waits lets the others run, and if all
// that are left wait, the launch fails with "deadlock" instead of hanging.
//
// What it finds: wrong indexing, missing or divergent barriers, wrong lane masks, order dependence (shuffle_threads),
// and, in an AddressSanitizer build, overruns of shared and global memory with the line of the .cu file.
// What it cannot: races of the memory model, asynchronous copies in flight, wgmma, TMA, clusters, speed.
//
// Limits: blocks up to 1024 threads; x86-64 (the fibre switch in emulator.cpp); one host thread at a time.
#pragma once
#include <cuda_runtime_api.h>
#include <vector_functions.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

// Shared memory is a plain static: one block runs at a time. Launch bounds mean nothing here.
#undef __shared__
#define __shared__ static
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __forceinline__
#define __forceinline__ inline __attribute__((always_inline))

namespace mimo::emulator {

// --- what cuda/launch.h uses -----------------------------------------------------------------------------------------
// Dynamic shared memory of more than 48 KB wants allow_shared(kernel) before.
// An early launch (programmatic dependent launch) runs like any other, but every thread must wait for the kernel before
// it, and let the next start after that only.
void launch(dim3 grid, dim3 block, size_t shared_bytes, std::function<void()> body, const void* kernel,
            bool early = false);
void allow_shared(const void* kernel);
void wait_for_previous_kernel();
void let_next_kernel_start();
unsigned char* dynamic_shared();
const char* launch_error();                  // of the last launch; nullptr if it went well; reading clears it
[[noreturn]] void fail(const char* reason);  // ends the launch; called from a kernel
void shuffle_threads(unsigned seed);         // 0: threads run in index order

// --- what the built-in variables and functions below use
// ---------------------------------------------------------------
struct Coordinates {
  uint3 thread, block;
  dim3 block_dim, grid_dim;
  int lane;
};
const Coordinates& here();

void sync_threads();
void sync_warp(unsigned mask);

// Every lane of `mask` publishes up to 16 bytes; returns the warp's table, valid until the lane's next but one
// exchange.
using LaneTable = const unsigned char (*)[16];
LaneTable exchange(unsigned mask, const void* value, size_t bytes);

template <class T>
LaneTable exchange(unsigned mask, const T& value) {
  static_assert(sizeof(T) <= 16 && std::is_trivially_copyable_v<T>);
  return exchange(mask, &value, sizeof value);
}
template <class T>
T from_lane(LaneTable table, int lane) {
  T value;
  std::memcpy(&value, table[lane], sizeof value);
  return value;
}

}  // namespace mimo::emulator

#define threadIdx (::mimo::emulator::here().thread)
#define blockIdx (::mimo::emulator::here().block)
#define blockDim (::mimo::emulator::here().block_dim)
#define gridDim (::mimo::emulator::here().grid_dim)
inline constexpr int warpSize = 32;

#include "emulator/device_functions.h"
