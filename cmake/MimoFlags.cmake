# Warnings for our own code, and the flags of each CPU instruction set.
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wall> $<$<COMPILE_LANGUAGE:CXX>:-Wextra>
                    $<$<COMPILE_LANGUAGE:CXX>:-Wno-psabi> $<$<COMPILE_LANGUAGE:CXX>:-Wno-ignored-attributes>)

# Kernels never look at errno or floating-point flags; everything else stays IEEE.
set(MIMO_KERNEL_FLAGS -O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(MIMO_ISAS baseline avx2 avx512)
  set(MIMO_FLAGS_baseline -msse4.2)
  set(MIMO_FLAGS_avx2 -mavx2 -mfma -mf16c)
  set(MIMO_FLAGS_avx512 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c -mprefer-vector-width=512)
else()
  set(MIMO_ISAS baseline)
endif()
