// The fibre scheduler behind emulator.h.
#include "emulator/emulator.h"

#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// Saves the callee-saved registers on the current stack, stores the stack pointer, continues on the other stack.
extern "C" void mimo_emulator_switch(void** save, void* load);
#if !defined(__x86_64__)
#error "the emulator's fibre switch is written for x86-64"
#endif
asm(R"(
.text
.globl mimo_emulator_switch
.type mimo_emulator_switch, @function
mimo_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size mimo_emulator_switch, .-mimo_emulator_switch
)");

namespace mimo::emulator {
namespace {

constexpr size_t kStackBytes = 128 * 1024;
constexpr int kWarp = 32;

// A barrier opens when `arrived` reaches the number of participants; waiting fibres watch `generation`.
struct Barrier {
  int arrived = 0;
  unsigned generation = 0;
  void open() {
    arrived = 0;
    ++generation;
  }
};

struct Warp {
  Barrier barrier;
  unsigned alive = 0;  // lanes that have not returned
  unsigned mask = 0;   // of the operation in progress
  alignas(
      16) unsigned char table[2][kWarp][16] = {};  // two, so that a fast lane does not overwrite what a slow one reads
};

struct Fibre {
  Coordinates at{};
  int warp = 0;
  bool done = false;
  bool waited = false;  // for the kernel before
  const Barrier* waits_for = nullptr;
  unsigned waits_since = 0;
  unsigned parity = 0;  // which table the next exchange uses
  void* stack_pointer = nullptr;
  std::unique_ptr<unsigned char[]> stack;
};

struct State {
  std::vector<Fibre> fibres;
  std::vector<Warp> warps;
  std::vector<unsigned char> shared;
  Barrier block_barrier;
  int alive = 0;
  Fibre* current = nullptr;
  void* scheduler = nullptr;
  std::function<void()> body;
  bool early = false;
  std::string error;
  std::set<const void*> allowed;  // kernels that may have more than 48 KB of shared memory
  std::mt19937 random;
  bool shuffle = false;
#if defined(__SANITIZE_ADDRESS__)
  const void* host_stack = nullptr;
  size_t host_stack_bytes = 0;
#endif
};

State& state() {
  static State s;
  return s;
}

void to_fibre(Fibre& fibre) {
  State& s = state();
  s.current = &fibre;
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, fibre.stack.get(), kStackBytes);
#endif
  mimo_emulator_switch(&s.scheduler, fibre.stack_pointer);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  s.current = nullptr;
}

void to_scheduler() {
  State& s = state();
  Fibre* me = s.current;
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(me->done ? nullptr : &fake, s.host_stack, s.host_stack_bytes);
#endif
  mimo_emulator_switch(&me->stack_pointer, s.scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, &s.host_stack, &s.host_stack_bytes);
#endif
}

void wait(Barrier& barrier) {
  Fibre* me = state().current;
  me->waits_for = &barrier;
  me->waits_since = barrier.generation;
  while (barrier.generation == me->waits_since) to_scheduler();
  me->waits_for = nullptr;
}

void run_fibre() {
  State& s = state();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &s.host_stack, &s.host_stack_bytes);
#endif
  s.body();
  Fibre* me = s.current;
  if (s.early && !me->waited) fail("a thread of an early launch returns without waiting for the kernel before");
  me->done = true;
  --s.alive;
  Warp& warp = s.warps[me->warp];
  warp.alive &= ~(1u << me->at.lane);
  // A thread that has returned counts as arrived, as on the device.
  if (s.alive && s.block_barrier.arrived == s.alive) s.block_barrier.open();
  if (warp.barrier.arrived && warp.barrier.arrived == __builtin_popcount(warp.mask & warp.alive)) warp.barrier.open();
  to_scheduler();
}

void prepare(Fibre& fibre) {
  if (!fibre.stack) fibre.stack.reset(new unsigned char[kStackBytes]);
#if defined(__SANITIZE_ADDRESS__)
  // A fibre abandoned in a failed launch never unwound: its frames' red zones are still marked.
  __asan_unpoison_memory_region(fibre.stack.get(), kStackBytes);
#endif
  auto top = (reinterpret_cast<uintptr_t>(fibre.stack.get()) + kStackBytes) & ~uintptr_t(15);
  void** stack = reinterpret_cast<void**>(top);
  *--stack = nullptr;  // keeps the stack aligned as after a call
  *--stack = reinterpret_cast<void*>(&run_fibre);
  for (int saved = 0; saved < 6; ++saved) *--stack = nullptr;
  fibre.stack_pointer = stack;
}

void run_block(uint3 block, dim3 block_dim, dim3 grid_dim) {
  State& s = state();
  const int threads = int(block_dim.x * block_dim.y * block_dim.z);
  s.alive = threads;
  s.block_barrier = {};
  s.warps.assign(size_t(threads + kWarp - 1) / kWarp, Warp{});
  if (s.fibres.size() < size_t(threads)) s.fibres.resize(size_t(threads));
  std::vector<int> order(static_cast<size_t>(threads));
  std::iota(order.begin(), order.end(), 0);
  for (int i = 0; i < threads; ++i) {
    Fibre& f = s.fibres[size_t(i)];
    const unsigned x = unsigned(i) % block_dim.x, y = unsigned(i) / block_dim.x % block_dim.y;
    f.at = {{x, y, unsigned(i) / (block_dim.x * block_dim.y)}, block, block_dim, grid_dim, i % kWarp};
    f.warp = i / kWarp;
    f.done = f.waited = false;
    f.waits_for = nullptr;
    f.parity = 0;
    s.warps[size_t(f.warp)].alive |= 1u << f.at.lane;
    prepare(f);
  }
  while (s.alive && s.error.empty()) {
    bool progress = false;
    if (s.shuffle) std::shuffle(order.begin(), order.end(), s.random);
    for (int i : order) {
      Fibre& f = s.fibres[size_t(i)];
      if (f.done || (f.waits_for && f.waits_for->generation == f.waits_since)) continue;
      progress = true;
      to_fibre(f);
      if (!s.error.empty()) return;
    }
    if (!progress) s.error = "deadlock: threads wait at a barrier that others never reach";
  }
}

}  // namespace

void launch(dim3 grid, dim3 block, size_t shared_bytes, std::function<void()> body, const void* kernel, bool early) {
  State& s = state();
  const size_t threads = size_t(block.x) * block.y * block.z;
  if (threads == 0 || threads > 1024 || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535 ||
      shared_bytes > (s.allowed.count(kernel) ? 227 : 48) * 1024) {
    s.error = "invalid configuration argument";
    return;
  }
  // 0xCD: reading shared memory before writing it gives conspicuous values.
  s.shared.assign(shared_bytes + 16, 0xCD);
  s.body = std::move(body);
  s.early = early;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x && s.error.empty(); ++x) run_block({x, y, z}, block, grid);
    }
  }
}

void allow_shared(const void* kernel) { state().allowed.insert(kernel); }

unsigned char* dynamic_shared() {
  const auto address = reinterpret_cast<uintptr_t>(state().shared.data());
  return reinterpret_cast<unsigned char*>((address + 15) & ~uintptr_t(15));
}

const char* launch_error() {
  State& s = state();
  if (s.error.empty()) return nullptr;
  static std::string last;
  last = std::move(s.error);
  s.error.clear();
  return last.c_str();
}

void fail(const char* reason) {
  State& s = state();
  const Coordinates& at = s.current->at;
  s.error = std::string(reason) + " (block " + std::to_string(at.block.x) + "," + std::to_string(at.block.y) + "," +
            std::to_string(at.block.z) + " thread " + std::to_string(at.thread.x) + "," + std::to_string(at.thread.y) +
            "," + std::to_string(at.thread.z) + ")";
  for (;;) to_scheduler();  // never resumed: the scheduler stops at the error
}

void wait_for_previous_kernel() { state().current->waited = true; }

void let_next_kernel_start() {
  if (state().early && !state().current->waited) fail("the next kernel may start before the one before has ended");
}

void shuffle_threads(unsigned seed) {
  State& s = state();
  s.shuffle = seed != 0;
  s.random.seed(seed);
}

const Coordinates& here() { return state().current->at; }

void sync_threads() {
  State& s = state();
  if (++s.block_barrier.arrived == s.alive) return s.block_barrier.open();
  wait(s.block_barrier);
}

void sync_warp(unsigned mask) {
  State& s = state();
  Warp& warp = s.warps[size_t(s.current->warp)];
  if (!(mask >> s.current->at.lane & 1)) fail("a lane takes part in a warp operation whose mask leaves it out");
  if (warp.barrier.arrived && warp.mask != mask) fail("lanes of one warp operation name different masks");
  warp.mask = mask;
  if (++warp.barrier.arrived == __builtin_popcount(mask & warp.alive)) return warp.barrier.open();
  wait(warp.barrier);
}

LaneTable exchange(unsigned mask, const void* value, size_t bytes) {
  Fibre* me = state().current;
  Warp& warp = state().warps[size_t(me->warp)];
  auto* table = warp.table[me->parity ^= 1];
  std::memcpy(table[me->at.lane], value, bytes);
  sync_warp(mask);
  return table;
}

}  // namespace mimo::emulator
