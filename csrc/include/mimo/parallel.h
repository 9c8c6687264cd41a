// Threads and scratch memory for CPU kernels. parallel_pieces is declared here, defined by whoever links the kernels:
// ops/parallel.cpp runs on torch's own pool, dsp/serial.cpp on the calling thread (data workers are processes already).
#pragma once
#include <cstddef>
#include <cstdint>

namespace mimo {

// Calls body(context, begin, end) for pieces of [0, count) of at least `grain` items, possibly at the same time.
void parallel_pieces(int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context);

int64_t thread_count();

// 64-byte aligned; throws std::bad_alloc. Defined in cpu/memory.cpp.
void* allocate_aligned(size_t bytes);
void free_aligned(void* pointer);

}  // namespace mimo
