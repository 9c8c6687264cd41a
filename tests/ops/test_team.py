"""The thread team of csrc/cpu/team.h: every task once, phase by phase; and who waits long sleeps, for others to run."""

import os
import subprocess
from pathlib import Path

CSRC = Path(__file__).parents[2] / "csrc"
PROGRAM = r"""
#include <poll.h>
#include <sched.h>
#include <time.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "cpu/team.h"

std::atomic<long> yields{0}, sleeps{0};

extern "C" int sched_yield() {
  if (++yields > 100'000'000) std::abort();  // a spin without end
  return 0;
}
extern "C" int nanosleep(const timespec*, timespec*) {
  ++sleeps;
  poll(nullptr, 0, 1);
  return 0;
}

namespace mimo {
void parallel_pieces(int64_t count, int64_t, void (*body)(void*, int64_t, int64_t), void* context) {
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < count; ++i) threads.emplace_back([=] { body(context, i, i + 1); });
  for (auto& thread : threads) thread.join();
}
int64_t thread_count() { return 8; }
}  // namespace mimo

using namespace mimo::cpu::MIMO_ISA;

int main() {
  // More threads than the machine has cores: every phase does its tasks once, then its finish, before the next begins.
  constexpr int kThreads = 32, kPhases = 50, kTasks = 100;
  std::vector<std::atomic<int>> done(kTasks);
  std::atomic<int> finished{0}, wrong{0};
  Team team(kThreads);
  for (int start = 0; start < 3; ++start) {
    team.start([&](Team::Member& member) {
      for (int phase = 0; phase < kPhases; ++phase) {
        member.run(
            kTasks, [&](int task) { wrong += done[task]++ != start * kPhases + phase; },
            [&] { wrong += finished++ != start * kPhases + phase; });
      }
    });
  }
  for (auto& count : done) wrong += count != 3 * kPhases;
  wrong += finished != 3 * kPhases;

  // One of two holds its task until the other has slept twenty times, as if its core were another's.
  Team pair(2);
  yields = sleeps = 0;
  std::atomic<int> begun{0};
  pair.start([&](Team::Member& member) {
    member.run(
        2,
        [&](int task) {
          ++begun;
          while (begun < 2) {  // both have one
          }
          while (task == 0 && sleeps < 20) {
          }
        },
        [] {});
  });
  std::printf("wrong %d yields %ld sleeps %ld\n", wrong.load(), yields.load(), sleeps.load());
  return wrong || yields > 100;
}
"""


def test_a_team_ends_its_phases_and_does_not_spin_for_long(tmp_path: Path) -> None:
    source, program = tmp_path / "team.cpp", tmp_path / "team"
    source.write_text(PROGRAM)
    compiler = os.environ.get("CXX", "c++")
    command = [compiler, "-std=c++20", "-O1", "-pthread", "-DMIMO_ISA=baseline", "-msse4.2", "-w", f"-I{CSRC}"]
    files = [source, CSRC / "cpu" / "memory.cpp"]
    subprocess.run([*command, f"-I{CSRC / 'include'}", *files, "-o", program], check=True)
    run = subprocess.run([program], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout or "a thread of the team spins without end"
