// The choice of RVQ codes from the tables of the codebooks.
//
// With c_s the entry that layer s chose, layer r's score of its entry e_k is
//     |e_k|^2 - 2 (x - c_0 - .. - c_{r-1}).e_k = |e_k|^2 - 2 (x.e_k - sum over s < r of c_s.e_k):
// a product that no layer waits for, and r numbers from a table. A team of threads, a warp where rows are many and a
// block where they are few, goes through a row's layers; each keeps its two lowest scores less their error bounds, so
// that one pass tells whether only one entry can be nearest. If not, a warp finds all that can, brings the residual up
// to date (its only use) and scores them in float64 as include/mimo/rvq.h defines.
//
// The bound. u = 2^-24, e = |e_k|, W = |x| + |c_0| + .. + |c_{r-1}|, and |x.e| <= |x||e| throughout.
//   - Split numbers: v = h + l + d with |l| <= 2^-9 (1 + 2^-9) |v|, |d| <= 2^-18 |v|. The products that are left out,
//     l l' + d v' + (v - d) d', are at most 3.02 2^-18 |v||v'|: 193.3 u.
//   - One mma instruction adds 16 exact products to each sum, 4 or more at a time. Of the numbers added together and
//     the result each may lose less than 2^-23 of the largest (tensor cores align to it and truncate; PTX promises
//     float32's precision, no rounding): at most 4 (4 + 2) 2^-23 = 48 u of the sum of magnitudes. Two instructions see
//     low parts only, 2^-8 of that: 50 u for 16 columns.
//   - The sums of 16 columns, `steps` of them, are added in float32 in some order: at most 1.01 (steps + 8) u.
//     So a product is right to (252 + 1.01 steps) u |v||v'|, and x.e_k - sum of c_s.e_k to the same times W e.
//   - The residual is rounded r <= R times, each time by at most u of what is left, which is no longer than 1.01 W:
//     1.01 R u W e.
//   - |e|^2 is rounded once; r + 2 additions form the score; two more, score and bound: at most
//     (R + 5) 1.01 u (e^2 + 2.02 W e).
// With the factor 2 of the products: |computed - exact| <= e (A W + B e), A = (516 + 2.1 steps + 4.2 R) u and
// B = (1.1 R + 7) u, which leaves 0.1 % for rounding norms, W and the bound itself. Below the normal range a part of a
// number may lose 2^-125 and a sum 2^-126 per addition (as if flushed to zero, which tensor cores need not do): that
// adds C (W + (R + 1) e) + D with C = sqrt(dim) 2^-122 and D = (R + 1) dim 2^-121.
// Where score or bound is not finite the entry is a candidate and lowers no limit: overflow costs time, never
// correctness.
#pragma once
#include "cuda/launch.h"
#include "cuda/rvq_exact.h"
#include "mimo/rvq.h"

namespace mimo::cuda {
namespace {

struct TableBound {
  float row, entry, tiny_norm, tiny;  // A, B, C, D
  int layers;
};

TableBound table_bound(int dim, int layers) {
  constexpr double u = 1.0 / (1 << 24);
  const double steps = rvq_steps(dim);
  return {float((516 + 2.1 * steps + 4.2 * layers) * u), float((1.1 * layers + 7) * u),
          float(std::sqrt(double(dim)) * 0x1p-122), float((layers + 1.0) * dim * 0x1p-121), layers};
}

// The residual of row n before layer `layer`, brought up to date by one warp. Lanes read only what they wrote.
template <class T>
struct Residual {
  const T* x;
  T* scratch;
  const int64_t* codes;  // of the row, `stride` apart
  int64_t stride;
  int layer;

  __device__ const T* before(int wanted, const Codebooks& books) {
    if (wanted > layer) {
      constexpr int kWide = 8;  // columns of a lane at a time: enough reads under way to hide that each is far off
      const T* from = data();
      for (int first = int(threadIdx.x) % 32; first < books.dim; first += 32 * kWide) {
        T value[kWide];
#pragma unroll
        for (int j = 0; j < kWide; ++j) value[j] = first + 32 * j < books.dim ? from[first + 32 * j] : T(0);
#pragma unroll 2
        for (int s = layer; s < wanted; ++s) {
          const T* entry = static_cast<const T*>(books.entries[s]) + codes[s * stride] * books.dim + first;
#pragma unroll
          for (int j = 0; j < kWide; ++j) {
            if (first + 32 * j < books.dim) value[j] -= entry[32 * j];
          }
        }
#pragma unroll
        for (int j = 0; j < kWide; ++j) {
          if (first + 32 * j < books.dim) scratch[first + 32 * j] = value[j];
        }
      }
      layer = wanted;
    }
    return data();
  }
  __device__ const T* data() const { return layer ? scratch : x; }
};

// The nearest of the entries for which candidate(k), by their exact scores; one warp.
template <class T, class Candidate>
__device__ int nearest(const T* residual, const T* entries, int size, int dim, Candidate candidate) {
  int best = -1;
  double best_score = 0;
  for (int base = 0; base < size; base += 32) {
    const int k = base + int(threadIdx.x) % 32;
    for (unsigned left = __ballot_sync(kAll, k < size && candidate(k)); left; left &= left - 1) {
      const int next = base + __ffs(int(left)) - 1;
      const double score = exact_score(residual, entries + int64_t(next) * dim, dim);
      if (best < 0 || score < best_score) best = next, best_score = score;
    }
  }
  return best;
}

// --- float32: from dot products and tables --------------------------------------------------------------------------

constexpr int kChooseThreads = 256, kPerThread = 4;  // entries that a thread scores at a time

// What the threads of a team tell one another. A team is a warp, several to a block, or a whole block.
template <int kTeam>
struct Team {
  static constexpr int kTeamWarps = kTeam / 32;
  int chosen[kMaxCodebooks];  // entries of the layers done, numbered among all
  float least[kTeamWarps];
  int votes[kTeamWarps], entry[kTeamWarps], settled;

  __device__ static void sync() {
    if (kTeam == 32) {
      __syncwarp();
    } else {
      __syncthreads();
    }
  }
  __device__ float minimum(float value) {
    for (int width = 16; width; width /= 2) {
      const float other = __shfl_xor_sync(kAll, value, width);
      value = other < value ? other : value;
    }
    if (kTeam == 32) return value;
    if (threadIdx.x % 32 == 0) least[threadIdx.x / 32] = value;
    sync();
    for (int i = 0; i < kTeamWarps; ++i) value = least[i] < value ? least[i] : value;
    return value;
  }
  // The entry of the only vote, or -1 if there are several. A thread votes once for `mine`, or `more` than once.
  __device__ int only(bool vote, bool more, int mine) {
    const unsigned voters = __ballot_sync(kAll, vote);
    const bool several = __any_sync(kAll, more);
    const int count = several ? 2 : __popc(voters),
              index = __shfl_sync(kAll, mine, voters ? __ffs(int(voters)) - 1 : 0);
    if (kTeam == 32) return count == 1 ? index : -1;
    if (threadIdx.x % 32 == 0) votes[threadIdx.x / 32] = count, entry[threadIdx.x / 32] = index;
    sync();
    int total = 0, found = -1;
    for (int i = 0; i < kTeamWarps; ++i) {
      total += votes[i];
      if (votes[i]) found = entry[i];
    }
    return total == 1 ? found : -1;
  }
};

// Chooses the codes of rows [first, first + rows).
template <int kTeam>
__global__ void __launch_bounds__(kChooseThreads)
    choose_kernel(RvqSearchParams p, RvqLayout layout, TableBound bound, int64_t first, int64_t rows) {
  constexpr int kTeams = kChooseThreads / kTeam;
  __shared__ Team<kTeam> teams[kTeams];
  Team<kTeam>& team = teams[threadIdx.x / kTeam];
  const int thread = int(threadIdx.x) % kTeam;
  const int64_t i = int64_t(blockIdx.x) * kTeams + threadIdx.x / kTeam;
  if (i >= rows) return;
  const int64_t n = first + i;
  const int dim = p.codebooks.dim, total = layout.offset[p.codebooks.layers];
  const float* x = static_cast<const float*>(p.x) + n * dim;
  Residual<float> residual{x, static_cast<float*>(p.residual) + i * dim, p.codes + n, p.count, 0};
  const float infinity = __int_as_float(0x7f800000);

  float reach = norm_above(exact_square(x, dim));  // W
  for (int r = 0; r < p.codebooks.layers; ++r) {
    const int offset = layout.offset[r], size = p.codebooks.sizes[r];
    const float* dots = p.dots + i * total + offset;
    const float2* norms = reinterpret_cast<const float2*>(p.tables.norms) + offset;
    const float* products = p.tables.products + layout.products[r];
    const float per_norm = bound.row * reach + bound.tiny_norm * float(bound.layers + 1);
    const float rest = bound.tiny_norm * reach + bound.tiny;
    // |e_k|^2 - 2 (x.e_k - known) and its bound
    const auto score = [&](int k, float known, float& error) {
      const float2 norm = norms[k];
      error = norm.y * (per_norm + bound.entry * norm.y) + rest;
      return norm.x - 2 * (dots[k] - known);
    };

    float limit = infinity, lowest = infinity, second = infinity;
    int mine = 0;
    for (int base = 0; base < size; base += kTeam * kPerThread) {
      float known[kPerThread] = {};
#pragma unroll 4
      for (int s = 0; s < r; ++s) {
        const float* table = products + int64_t(team.chosen[s]) * size;
#pragma unroll
        for (int j = 0; j < kPerThread; ++j) {
          const int k = base + j * kTeam + thread;
          if (k < size) known[j] += table[k];
        }
      }
#pragma unroll
      for (int j = 0; j < kPerThread; ++j) {
        const int k = base + j * kTeam + thread;
        if (k >= size) continue;
        float error;
        const float value = score(k, known[j], error);
        const bool finite = std::fabs(value) + error < infinity;
        const float low = finite ? value - error : -infinity;
        if (finite && value + error < limit) limit = value + error;
        second = low < lowest ? lowest : (low < second ? low : second);
        if (low < lowest) lowest = low, mine = k;
      }
    }
    limit = team.minimum(limit);
    int code = team.only(lowest <= limit, second <= limit, mine);
    if (code < 0) {
      if (thread < 32) {
        const auto candidate = [&](int k) {
          float known = 0, error;
          for (int s = 0; s < r; ++s) known += products[int64_t(team.chosen[s]) * size + k];
          const float value = score(k, known, error);
          return !(std::fabs(value) + error < infinity) || value - error <= limit;
        };
        const auto* entries = static_cast<const float*>(p.codebooks.entries[r]);
        code = nearest(residual.before(r, p.codebooks), entries, size, dim, candidate);
      }
      if (kTeam > 32) {
        if (thread == 0) team.settled = code;
        team.sync();
        code = team.settled;
      }
    }
    if (thread == 0) {
      team.chosen[r] = offset + code;
      p.codes[r * p.count + n] = code;
    }
    team.sync();
    reach += norms[code].y;
  }
}

// --- float64: every entry is scored as the definition says, for gradcheck and tests
// -----------------------------------

__global__ void choose_exactly_kernel(RvqSearchParams p, int64_t first, int64_t rows) {
  const int64_t i = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (i >= rows) return;
  const int64_t n = first + i;
  const int dim = p.codebooks.dim;
  const double* x = static_cast<const double*>(p.x) + n * dim;
  Residual<double> residual{x, static_cast<double*>(p.residual) + i * dim, p.codes + n, p.count, 0};
  for (int r = 0; r < p.codebooks.layers; ++r) {
    const auto* entries = static_cast<const double*>(p.codebooks.entries[r]);
    const int code =
        nearest(residual.before(r, p.codebooks), entries, p.codebooks.sizes[r], dim, [](int) { return true; });
    if (threadIdx.x % 32 == 0) p.codes[r * p.count + n] = code;
    __syncwarp();
  }
}

}  // namespace
}  // namespace mimo::cuda
