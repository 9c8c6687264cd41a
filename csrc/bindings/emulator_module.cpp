// mimo_audio_native._emulator: importing it registers torch.ops.mimo_emu.*, the CUDA kernels run on the CPU by
// csrc/emulator. For tests; never part of a wheel.
#include <pybind11/pybind11.h>

#include "common/bad_data.h"
#include "cuda/fft.cuh"
#include "emulator/emulator.h"
#include "emulator/self_test.h"

// The passes of a float32 FFT, as (radix, span, pad).
static pybind11::list fft_passes(int n_fft) {
  const mimo::cuda::FftPlan plan = mimo::cuda::make_fft_plan<float>(n_fft);
  pybind11::list passes;
  for (int i = 0; i < plan.passes; ++i) {
    passes.append(pybind11::make_tuple(plan.radix[i], plan.span[i], plan.pad[i]));
  }
  return passes;
}

PYBIND11_MODULE(_emulator, m) {
  m.def("shuffle_threads", &mimo::emulator::shuffle_threads, pybind11::arg("seed"),
        "Run the threads of each block in an order drawn from `seed` (0: in index order).");
  m.def("self_test", &mimo::emulator::self_test, pybind11::arg("name"),
        "Run a small kernel of emulator/self_test.cpp; its result, or the launch's error.");
  m.def(
      "take_bad_data", [] { return mimo::bad_data_text(mimo::cuda::take_bad_data(0)); },
      "What kernels have reported since the last call, or the empty string.");
  m.def("fft_passes", &fft_passes, pybind11::arg("n_fft"), "The passes of a float32 FFT, as (radix, span, pad).");
}
