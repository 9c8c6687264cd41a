// Philox4x32-10, a counter-based random number generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
// 2011): a draw depends on its request's seed and its place only, so a request gives the same tokens in any batch.
#pragma once
#include <cstdint>

#if defined(__CUDACC__)
#define MIMO_HOST_DEVICE __host__ __device__
#else
#define MIMO_HOST_DEVICE
#endif

namespace mimo {

// The uniform number in [0, 1) with 53 bits of request `seed`, at position `offset`, for draw `stream`.
MIMO_HOST_DEVICE inline double philox_uniform(uint64_t seed, uint64_t offset, uint32_t stream) {
  uint32_t counter[4] = {uint32_t(offset), uint32_t(offset >> 32), stream, 0};
  uint32_t key[2] = {uint32_t(seed), uint32_t(seed >> 32)};
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t(0xD2511F53u) * counter[0], b = uint64_t(0xCD9E8D57u) * counter[2];
    const uint32_t next[4] = {uint32_t(b >> 32) ^ counter[1] ^ key[0], uint32_t(b),
                              uint32_t(a >> 32) ^ counter[3] ^ key[1], uint32_t(a)};
    for (int i = 0; i < 4; ++i) counter[i] = next[i];
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return double((uint64_t(counter[0]) << 32 | counter[1]) >> 11) * 0x1p-53;
}

}  // namespace mimo
