// Bad data that a CUDA kernel meets: NaN among logits, a code out of range. An op cannot look beforehand without
// synchronising, and a trap would end the CUDA context of every request in the process. So the kernel goes on with
// something harmless (token 0, entry 0) and leaves word of one such place where the host looks when it has synchronised
// anyway: mimo_audio_native.raise_device_errors. Traps (MIMO_DEVICE_CHECK) are for what only a wrong program passes.
#pragma once
#include <cstdint>

namespace mimo {

enum class BadData : uint8_t { none, sample, delayed_sampling, patch_decode, rvq_decode, rvq_backward, backbone_step };

// What a word says: the op, which of its arguments (or layers), and the row.
struct BadDataPlace {
  BadData op;
  uint8_t part;
  int64_t row;
};
inline constexpr int kBadRowBits = 48;
inline constexpr uint8_t kBadLogits = 0, kBadTemperature = 1, kBadTopP = 2;              // parts of ops that sample
inline constexpr uint8_t kBadLengths = 0, kBadPadding = 1, kBadPages = 2, kBadEnds = 3;  // of backbone_step

namespace cuda {
constexpr uint64_t bad_data_word(BadDataPlace at) {
  return uint64_t(at.op) << (kBadRowBits + 8) | uint64_t(at.part) << kBadRowBits | uint64_t(at.row);
}
constexpr BadDataPlace bad_data_place(uint64_t word) {
  return {BadData(word >> (kBadRowBits + 8)), uint8_t(word >> kBadRowBits),
          int64_t(word & ((uint64_t(1) << kBadRowBits) - 1))};
}

// The word of a device, to which its kernels write: in the host's memory, in one place as long as the process lives, so
// that CUDA graphs may keep it. The current device if negative; null where CUDA gives none.
uint64_t* bad_data_word_of(int device);
// One of the places of bad data that kernels of the device, finished by now, have met since the last call.
BadDataPlace take_bad_data(int device);
}  // namespace cuda

}  // namespace mimo
