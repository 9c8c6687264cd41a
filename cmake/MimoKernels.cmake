# The kernels, which know no framework: mimo_cpu (one copy per instruction set) and mimo_cuda.
set(MIMO_CPU_SOURCES ${MIMO_OPS} ${MIMO_CPU_OPS})
list(TRANSFORM MIMO_CPU_SOURCES REPLACE "(.+)" "csrc/cpu/\\1.cpp")
list(TRANSFORM MIMO_OPS REPLACE "(.+)" "csrc/cuda/\\1.cu" OUTPUT_VARIABLE MIMO_CUDA_SOURCES)
list(APPEND MIMO_CUDA_SOURCES csrc/cuda/bad_data.cu)

add_library(mimo_cpu STATIC csrc/common/cpu_dispatch.cpp csrc/cpu/memory.cpp csrc/cpu/fft_plan.cpp)
target_include_directories(mimo_cpu PRIVATE csrc csrc/include)
# A rotation is its definition's bit for bit: products are rounded before they are summed.
set_source_files_properties(csrc/cpu/rotary.cpp PROPERTIES COMPILE_OPTIONS -ffp-contract=off)
foreach(isa ${MIMO_ISAS})
  add_library(mimo_cpu_${isa} OBJECT ${MIMO_CPU_SOURCES})
  target_include_directories(mimo_cpu_${isa} PRIVATE csrc csrc/include)
  target_compile_definitions(mimo_cpu_${isa} PRIVATE MIMO_ISA=${isa})
  target_compile_options(mimo_cpu_${isa} PRIVATE ${MIMO_KERNEL_FLAGS} ${MIMO_FLAGS_${isa}})
  target_sources(mimo_cpu PRIVATE $<TARGET_OBJECTS:mimo_cpu_${isa}>)
  if(NOT isa STREQUAL "baseline")
    add_custom_command(
      TARGET mimo_cpu PRE_LINK
      COMMAND "${Python_EXECUTABLE}" "${CMAKE_CURRENT_SOURCE_DIR}/cmake/check_isa_objects.py" ${isa}
              "$<TARGET_OBJECTS:mimo_cpu_${isa}>"
      COMMAND_EXPAND_LISTS VERBATIM)
  endif()
endforeach()

if(MIMO_HAVE_CUDA)
  add_library(mimo_cuda STATIC ${MIMO_CUDA_SOURCES})
  target_include_directories(mimo_cuda PRIVATE csrc csrc/include)
  target_compile_options(mimo_cuda PRIVATE --expt-relaxed-constexpr -Xptxas=-v)
  # A row's numbers must not depend on its batch: left to itself, nvcc contracts products and sums differently from one
  # instantiation of a template to the next. These say where they want a fused multiply-add (__fmaf_rn).
  set_source_files_properties(csrc/cuda/backbone_step.cu csrc/cuda/patch_decode.cu csrc/cuda/delayed_sampling.cu
                              csrc/cuda/rotary.cu csrc/cuda/linear.cu csrc/cuda/quantized_linear.cu
                              PROPERTIES COMPILE_OPTIONS -fmad=false)
  set_target_properties(mimo_cuda PROPERTIES CUDA_RUNTIME_LIBRARY Static)
  target_link_directories(mimo_cuda PUBLIC ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES})
  target_link_libraries(mimo_cuda PUBLIC cudart_static rt pthread dl)
endif()
