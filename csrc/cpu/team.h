// Threads that go through the same sequence of short phases together, as the steps of a decoder do: a phase of a small
// model takes microseconds, less than waking threads for each of them would.
//
// Every thread calls run() with the same phases in the same order. Tasks are claimed, not assigned: a thread begins
// with its own share, so that its weights stay in its cache, then takes what nobody has begun. So a phase waits only
// for tasks that are being run: it ends also if some threads come late or never (a pool may give fewer, or run pieces
// in turn). A thread that waits spins for some microseconds, then sleeps in between.
#pragma once
#include <sched.h>
#include <time.h>

#include "cpu/isa.h"

namespace mimo::cpu::MIMO_ISA {

class Team {
  static constexpr int kTasksPerThread = 4;
  // Waiting begins as a spin. It may not stay one: where there are more threads than cores, a yield gives way only to
  // those of the same core, and the one that is waited for may be another's prey. So it sleeps in the end.
  static constexpr int kPauses = 200, kYields = 100, kSleepNanoseconds = 50'000;

 public:
  explicit Team(int threads) : threads_(threads), slots_(kTasksPerThread * threads) {
    for (int i = 0; i < kTasksPerThread * threads; ++i) slots_[i].phase = 0;
  }

  int threads() const { return threads_; }

  // Calls work(member) on all threads.
  template <class Work>
  void start(Work&& work) {
    // Numbers of phases go on from start to start, and so does what members count.
    const uint64_t done = done_, first = phase_;
    uint64_t last = first;
    const auto join = [&](int64_t index) {
      Member member(*this, int(index), done, first);
      work(member);
      if (index == 0) last = member.phase_;
    };
    if (threads_ == 1) {
      join(0);
    } else {
      parallel_for(threads_, 1, [&](int64_t begin, int64_t) { join(begin); });
    }
    phase_ = last;
  }

  class Member {
   public:
    int index() const { return index_; }

    // body(task) for every task in [0, tasks), at most kTasksPerThread per thread, then finish() once; returns when all
    // that is done.
    template <class Body, class Finish>
    void run(int tasks, Body&& body, Finish&& finish) {
      ++phase_;
      const uint64_t all = expected_ + uint64_t(tasks);
      expected_ = all + 1;
      const int own = index_ * tasks / team_.threads_;
      for (int i = 0; i < tasks && !reached(expected_); ++i) {
        const int task = own + i < tasks ? own + i : own + i - tasks;
        if (!claim(task)) continue;
        body(task);
        if (__atomic_add_fetch(&team_.done_, 1, __ATOMIC_ACQ_REL) != all) continue;
        finish();
        __atomic_add_fetch(&team_.done_, 1, __ATOMIC_ACQ_REL);
      }
      for (int i = 0; !reached(expected_); ++i) {
        if (i < kPauses) {
          pause();
        } else if (i < kPauses + kYields) {
          sched_yield();
        } else {
          sleep();
        }
      }
    }

    // body(begin, end) for all rows of weights in pieces of whole units, then finish().
    template <class Body, class Finish>
    void run_rows(int rows, int unit, int64_t row_bytes, Body&& body, Finish&& finish) {
      constexpr int64_t kTaskBytes = 64 << 10;
      const int units = (rows + unit - 1) / unit, threads = team_.threads_;
      const int64_t rounds = rows * row_bytes / (kTaskBytes * threads);  // as many tasks for each thread
      const int wanted = threads * int(rounds < 1 ? 1 : rounds < kTasksPerThread ? rounds : kTasksPerThread);
      const int tasks = wanted < units ? wanted : units;
      const auto start = [&](int task) { return int(int64_t(units) * task / tasks) * unit; };
      run(
          tasks,
          [&](int task) {
            const int end = start(task + 1);
            body(start(task), end < rows ? end : rows);
          },
          finish);
    }

   private:
    friend class Team;
    Member(Team& team, int index, uint64_t done, uint64_t phase)
        : team_(team), index_(index), expected_(done), phase_(phase) {}

    bool reached(uint64_t count) const { return __atomic_load_n(&team_.done_, __ATOMIC_ACQUIRE) >= count; }

    bool claim(int task) {
      uint64_t* slot = &team_.slots_[task].phase;
      uint64_t seen = __atomic_load_n(slot, __ATOMIC_RELAXED);
      return seen < phase_ &&
             __atomic_compare_exchange_n(slot, &seen, phase_, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    }

    static void pause() {
#if defined(__x86_64__)
      _mm_pause();
#endif
    }

    static void sleep() {
      const timespec time{0, kSleepNanoseconds};
      nanosleep(&time, nullptr);
    }

    Team& team_;
    int index_;
    uint64_t expected_, phase_;  // done_ when the phase is over; the phase's number
  };

 private:
  struct alignas(64) Slot {
    uint64_t phase;  // the last one in which the task was claimed
  };

  int threads_;
  uint64_t phase_ = 0;
  Scratch<Slot> slots_;
  alignas(64) uint64_t done_ = 0;  // tasks, and a finish for every phase
};

}  // namespace mimo::cpu::MIMO_ISA
