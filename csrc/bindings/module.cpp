// mimo_audio_native._C: importing it registers torch.ops.mimo.* (static initialisers of ops/*.cpp); build_info() says
// how it was built, take_bad_data(device) what its CUDA kernels have reported. Includes no torch header.
#include <pybind11/pybind11.h>

#include "common/bad_data.h"
#include "common/cpu_dispatch.h"

namespace py = pybind11;

PYBIND11_MODULE(_C, m) {
  m.def("build_info", [] {
    py::dict info;
    info["version"] = MIMO_VERSION;
    info["git_revision"] = MIMO_GIT_REVISION;
    info["compiler"] = MIMO_COMPILER;
    info["torch_target"] = MIMO_TORCH_TARGET;
    info["cpu_isa"] = mimo::cpu_isa_name();
#if defined(MIMO_WITH_CUDA)
    info["cuda"] = MIMO_CUDA_VERSION;
    info["cuda_archs"] = MIMO_CUDA_ARCHS;
#else
    info["cuda"] = py::none();
    info["cuda_archs"] = "";
#endif
    return info;
  });
  m.def("take_bad_data", []([[maybe_unused]] int device) -> std::string {
#if defined(MIMO_WITH_CUDA)
    return mimo::bad_data_text(mimo::cuda::take_bad_data(device));
#else
    return "";
#endif
  });
}
