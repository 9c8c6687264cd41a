# mimo_audio_native._emulator: the CUDA sources compiled by the host compiler over csrc/emulator, registered as
# torch.ops.mimo_emu.* for CPU tensors.
if(NOT MIMO_CUDA_INCLUDE)
  message(STATUS "mimo: emulator OFF (no cuda_runtime_api.h found)")
  return()
endif()
message(STATUS "mimo: emulator ${MIMO_EMULATOR}")
set_source_files_properties(${MIMO_CUDA_SOURCES} PROPERTIES LANGUAGE CXX)
pybind11_add_module(_emulator MODULE NO_EXTRAS csrc/bindings/emulator_module.cpp csrc/emulator/emulator.cpp
                    ${MIMO_TORCH_SOURCES} ${MIMO_CUDA_SOURCES})
mimo_link_torch(_emulator)
target_compile_definitions(_emulator PRIVATE MIMO_EMULATOR)
target_include_directories(_emulator SYSTEM PRIVATE ${MIMO_CUDA_INCLUDE})
target_compile_options(_emulator PRIVATE -g -Wno-unused-function -Wno-unknown-pragmas)
if(MIMO_EMULATOR STREQUAL "ASAN")
  target_compile_options(_emulator PRIVATE -fsanitize=address)
  target_link_options(_emulator PRIVATE -fsanitize=address)
endif()
install(TARGETS _emulator LIBRARY DESTINATION mimo_audio_native)
