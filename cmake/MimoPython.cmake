# Python, the binding libraries and torch. torch is located, never imported, and never find_package'd: its own CMake
# files want a whole CUDA toolkit and set architectures of their own.
find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)

function(mimo_python_package_dir package variable)
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -c
            "import importlib.util as u; print(u.find_spec('${package}').submodule_search_locations[0])"
    OUTPUT_VARIABLE dir OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE failed ERROR_QUIET)
  if(failed)
    message(FATAL_ERROR "${package} is not installed for ${Python_EXECUTABLE}")
  endif()
  set(${variable} "${dir}" PARENT_SCOPE)
endfunction()

foreach(package pybind11 nanobind)
  mimo_python_package_dir(${package} dir)
  list(APPEND CMAKE_PREFIX_PATH "${dir}")
endforeach()
set(PYBIND11_FINDPYTHON ON)
find_package(pybind11 CONFIG REQUIRED)
find_package(nanobind CONFIG REQUIRED)

mimo_python_package_dir(torch MIMO_TORCH)
set(MIMO_TORCH_TARGET 0x020b000000000000) # the stable ABI of torch 2.11

set(MIMO_GIT_REVISION "$ENV{MIMO_REVISION}") # where only the files travel, who sends them says what they are
if(NOT MIMO_GIT_REVISION)
  execute_process(
    COMMAND git describe --always --dirty --abbrev=12
    WORKING_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}"
    OUTPUT_VARIABLE MIMO_GIT_REVISION OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
if(NOT MIMO_GIT_REVISION)
  set(MIMO_GIT_REVISION unknown)
endif()
set(MIMO_BUILD_INFO
    MIMO_VERSION="${PROJECT_VERSION}"
    MIMO_GIT_REVISION="${MIMO_GIT_REVISION}"
    "MIMO_COMPILER=\"${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}\""
    MIMO_TORCH_TARGET="2.11"
    MIMO_CUDA_VERSION="${CMAKE_CUDA_COMPILER_VERSION}"
    "MIMO_CUDA_ARCHS=\"$<JOIN:${CMAKE_CUDA_ARCHITECTURES}, >\"")

# Compiles against torch's stable ABI. libtorch.so pulls in libtorch_cpu and, in a CUDA torch, libtorch_cuda.
function(mimo_link_torch target)
  target_compile_definitions(${target} PRIVATE TORCH_TARGET_VERSION=${MIMO_TORCH_TARGET})
  target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}/csrc" "${PROJECT_SOURCE_DIR}/csrc/include")
  target_include_directories(${target} SYSTEM PRIVATE "${MIMO_TORCH}/include")
  # torch carries a pybind11 of its own, which refuses code for the stable ABI: ours comes first.
  target_include_directories(${target} SYSTEM BEFORE PRIVATE "${pybind11_INCLUDE_DIR}")
  target_link_libraries(${target} PRIVATE -Wl,--no-as-needed "${MIMO_TORCH}/lib/libtorch.so" -Wl,--as-needed
                                          "${MIMO_TORCH}/lib/libtorch_cpu.so")
  target_link_options(${target} PRIVATE -Wl,--exclude-libs,ALL)
  set_target_properties(${target} PROPERTIES LINKER_LANGUAGE CXX BUILD_WITH_INSTALL_RPATH ON
                                             INSTALL_RPATH "$ORIGIN/../torch/lib")
  if(MIMO_DEV_OUTPUT)
    set_target_properties(${target} PROPERTIES LIBRARY_OUTPUT_DIRECTORY "${MIMO_DEV_OUTPUT}"
                                               INSTALL_RPATH "${MIMO_TORCH}/lib")
  endif()
endfunction()
