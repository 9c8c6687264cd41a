// Scratch memory of the CPU kernels, compiled once without vector flags (see cpu/isa.h for why).
#include <cstdlib>
#include <new>

#include "mimo/parallel.h"

namespace mimo {

void* allocate_aligned(size_t bytes) {
  constexpr size_t line = 64;
  void* pointer = std::aligned_alloc(line, (bytes + line) / line * line);
  if (!pointer) throw std::bad_alloc();
  return pointer;
}

void free_aligned(void* pointer) { std::free(pointer); }

}  // namespace mimo
