// mimo_audio_native._emulator: importing it registers torch.ops.mimo_emu.*, the CUDA kernels run on the CPU by
// csrc/emulator. For tests; never part of a wheel.
#include <pybind11/pybind11.h>

#include "emulator/emulator.h"
#include "emulator/self_test.h"

PYBIND11_MODULE(_emulator, m) {
  m.def("shuffle_threads", &mimo::emulator::shuffle_threads, pybind11::arg("seed"),
        "Run the threads of each block in an order drawn from `seed` (0: in index order).");
  m.def("self_test", &mimo::emulator::self_test, pybind11::arg("name"),
        "Run a small kernel of emulator/self_test.cpp; its result, or the launch's error.");
}
