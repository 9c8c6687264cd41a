// The words in which kernels report bad data: one per device, in pinned host memory that all devices can write to.
#include <atomic>

#include "cuda/bad_data.cuh"

namespace mimo::cuda {
namespace {

constexpr int kDevices = 64;

uint64_t* allocate() {
#if defined(__CUDACC__)
  // The first call may fall into a stream capture, which has no part in this.
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  cudaThreadExchangeStreamCaptureMode(&mode);
  void* words = nullptr;
  const cudaError_t error =
      cudaHostAlloc(&words, kDevices * sizeof(uint64_t), cudaHostAllocPortable | cudaHostAllocMapped);
  cudaThreadExchangeStreamCaptureMode(&mode);
  if (error != cudaSuccess) {
    (void)cudaGetLastError();  // no launch's error
    return nullptr;
  }
  for (int i = 0; i < kDevices; ++i) static_cast<uint64_t*>(words)[i] = 0;
  return static_cast<uint64_t*>(words);
#else
  static uint64_t words[kDevices];
  return words;
#endif
}

int current_device() {
  int device = 0;
#if defined(__CUDACC__)
  cudaGetDevice(&device);
#endif
  return device;
}

}  // namespace

uint64_t* bad_data_word_of(int device) {
  static uint64_t* const words = allocate();
  if (device < 0) device = current_device();
  return words && device < kDevices ? words + device : nullptr;
}

BadDataPlace take_bad_data(int device) {
  uint64_t* word = bad_data_word_of(device);
  return bad_data_place(word ? __atomic_exchange_n(word, uint64_t(0), __ATOMIC_ACQ_REL) : 0);
}

}  // namespace mimo::cuda
