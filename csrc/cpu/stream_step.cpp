// stream_layers (cpu/stream_layers.h), stream_up_convolution and stream_istft on the CPU. Every number is computed by
// one thread in one order that neither the other streams nor the cut into calls changes.
#include "mimo/stream_step.h"

#include "cpu/overlap_add.h"
#include "cpu/stream_layers.h"

namespace mimo::cpu::MIMO_ISA {
namespace {

// --- up-convolution --------------------------------------------------------------------------------------------------

// kRows rows of y = x weight for kVectors vectors of columns, the last of `lanes`; weight [depth, columns].
template <int kRows, int kVectors, class T>
inline void columns_tile(const float* const* x, const T* weight, int depth, int64_t columns, int lanes,
                         float* const* y) {
  constexpr int L = kLanes<float>, kAhead = 8;
  Vec<float> sum[kRows][kVectors] = {};
  for (int i = 0; i < depth; ++i) {
    const T* row = weight + i * columns;
    for (int v = 0; v < kVectors; ++v) {
      __builtin_prefetch(row + kAhead * columns + v * L);
      const Vec<float> w = kVectors > 1 ? load_wide(row + v * L) : load_up_to(row, lanes);
      for (int r = 0; r < kRows; ++r) sum[r][v] += w * x[r][i];
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) store_up_to(y[r] + v * L, sum[r][v], kVectors > 1 ? L : lanes);
  }
}

// Columns [begin, end) of y [rows, columns] = x [rows, depth] weight [depth, columns].
template <class T>
void columns_product(const Rows& x, int rows, const T* weight, int depth, int64_t columns, int64_t begin, int64_t end,
                     const Rows& y) {
  constexpr int L = kLanes<float>, kVectors = 4, kRows = kVectorBytes == 64 ? 4 : 2;
  const auto tile = [&]<int kCount>(int row) {
    const float* from[kCount];
    float* to[kCount];
    for (int r = 0; r < kCount; ++r) from[r] = x[row + r];
    const auto at = [&](int64_t c) {
      for (int r = 0; r < kCount; ++r) to[r] = y[row + r] + c;
    };
    int64_t c = begin;
    for (; c + kVectors * L <= end; c += kVectors * L) {
      at(c);
      columns_tile<kCount, kVectors>(from, weight + c, depth, columns, L, to);
    }
    for (; c < end; c += L) {
      at(c);
      columns_tile<kCount, 1>(from, weight + c, depth, columns, int(end - c < L ? end - c : L), to);
    }
  };
  int row = 0;
  for (; row + kRows <= rows; row += kRows) tile.template operator()<kRows>(row);
  for (; row < rows; ++row) tile.template operator()<1>(row);
}

template <class T>
class UpConvolution {
 public:
  explicit UpConvolution(const StreamUpConvolutionParams& p) : p_(p), s_(p.streams) {}

  void run() const {
    std::memset(p_.out, 0, size_t(s_.batch) * s_.rows * p_.stride * p_.outputs * sizeof(T));
    int count = 0;
    const Scratch<int> active(s_.batch);
    for (int b = 0; b < s_.batch; ++b) {
      if (s_.is_active(b)) active[count++] = b;
    }
    const int total = count * s_.rows;
    const int64_t columns = int64_t(p_.outputs) * p_.kernel;
    const Rows x(total, p_.inputs), taps(total, columns);
    for (int i = 0; i < total; ++i) {
      const int64_t row = int64_t(active[i / s_.rows]) * s_.rows + i % s_.rows;
      widen_row(static_cast<const T*>(p_.x) + row * p_.inputs, p_.inputs, x[i]);
    }
    constexpr int64_t kBlock = 64, kWorkPerPiece = 128 << 10;  // multiply-adds worth a thread
    const int64_t blocks = (columns + kBlock - 1) / kBlock;
    parallel_for(blocks, 1 + kWorkPerPiece / (kBlock * p_.inputs * (total + 1)), [&](int64_t begin, int64_t end) {
      const int64_t last = end * kBlock < columns ? end * kBlock : columns;
      columns_product(x, total, static_cast<const T*>(p_.weight), p_.inputs, columns, begin * kBlock, last, taps);
    });
    parallel_for(count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) stream(active[i], taps, int(i) * s_.rows);
    });
  }

 private:
  // Adds up the taps of stream b, rows `at` and on, normalizes the rows that have waited long enough.
  void stream(int b, const Rows& taps, int at) const {
    const int width = p_.outputs, stride = p_.stride, trim = p_.kernel - stride, made = s_.rows * stride;
    const Scratch<float> line(int64_t(p_.behind + made + trim) * width);
    float* const y = line.get() + int64_t(p_.behind) * width;
    float* const carry = p_.carry + int64_t(b) * trim * width;
    float* const waiting = p_.line + int64_t(b) * p_.behind * width;
    std::memcpy(line.get(), waiting, size_t(p_.behind) * width * sizeof(float));
    std::memset(y, 0, size_t(made + trim) * width * sizeof(float));
    std::memcpy(y, carry, size_t(trim) * width * sizeof(float));
    for (int t = 0; t < s_.rows; ++t) {
      for (int k = 0; k < p_.kernel; ++k) {
        float* to = y + int64_t(t * stride + k) * width;
        const float* from = taps[at + t] + k;
        for (int o = 0; o < width; ++o) to[o] += from[o * p_.kernel];
      }
    }
    std::memcpy(carry, y + int64_t(made) * width, size_t(trim) * width * sizeof(float));
    if (p_.bias) {
      for (int t = 0; t < made; ++t) add_row(static_cast<const T*>(p_.bias), width, y + int64_t(t) * width);
    }
    double* const sums = p_.sums + int64_t(b) * 3;
    for (int first = 0; first < s_.rows; first += p_.group) {
      const int64_t known = s_.end[b] - s_.position[b] - first;  // rows of the group that the stream has
      const int rows = int(known < 0 ? 0 : known < p_.group ? known : p_.group) * stride;
      double total = 0, squares = 0;
      for (int t = first * stride; t < first * stride + rows; ++t) add_sums(y + int64_t(t) * width, total, squares);
      sums[0] = sums[0] * p_.keep + double(rows) * width;
      sums[1] = sums[1] * p_.keep + total;
      sums[2] = sums[2] * p_.keep + squares;
      for (int t = first * stride; t < (first + p_.group) * stride; ++t) {
        normalize(sums, line.get() + int64_t(t) * width, static_cast<T*>(p_.out) + (int64_t(b) * made + t) * width);
      }
    }
    std::memcpy(waiting, line.get() + int64_t(made) * width, size_t(p_.behind) * width * sizeof(float));
  }

  void add_sums(const float* row, double& total, double& squares) const {
    constexpr int kSums = 8;
    double sum[kSums] = {}, square[kSums] = {};
    for (int o = 0; o < p_.outputs; ++o) {
      sum[o % kSums] += row[o];
      square[o % kSums] += double(row[o]) * row[o];
    }
    for (int i = 0; i < kSums; ++i) total += sum[i], squares += square[i];
  }

  void normalize(const double* sums, const float* row, T* out) const {
    const double mean = sums[1] / sums[0], scale = 1 / std::sqrt(sums[2] / sums[0] - mean * mean + p_.eps);
    constexpr int kPart = 64;
    const T *weight = static_cast<const T*>(p_.norm_weight), *bias = static_cast<const T*>(p_.norm_bias);
    for (int from = 0; from < p_.outputs; from += kPart) {
      const int count = p_.outputs - from < kPart ? p_.outputs - from : kPart;
      float w[kPart], b[kPart], y[kPart];
      widen_row(weight + from, count, w);
      widen_row(bias + from, count, b);
      for (int i = 0; i < count; ++i) y[i] = float((row[from + i] - mean) * scale) * w[i] + b[i];
      narrow_row(y, count, out + from);
    }
  }

  const StreamUpConvolutionParams& p_;
  const Streams& s_;
};

// --- inverse STFT ----------------------------------------------------------------------------------------------------

// Frames of all active streams are transformed kLanes at a time, then every stream adds up its own.
void istft(const StreamIstftParams& p) {
  constexpr int L = kLanes<float>;
  const Streams& s = p.streams;
  const int bins = p.n_fft / 2 + 1, rest = p.n_fft - p.hop;
  std::memset(p.out, 0, size_t(s.batch) * s.rows * p.hop * sizeof(float));
  int count = 0;
  const Scratch<int> active(s.batch);
  for (int b = 0; b < s.batch; ++b) {
    if (s.is_active(b)) active[count++] = b;
  }
  const int64_t frames = int64_t(count) * s.rows;
  const Scratch<float> made(frames * p.n_fft), window(p.n_fft);
  place_window(p.window, p.n_fft, 0, p.n_fft, 1.0 / p.n_fft, true, window.get());
  parallel_for((frames + L - 1) / L, 1, [&](int64_t first, int64_t last) {
    FrameScratch<float> scratch(p.n_fft);
    const Scratch<float> turned(p.advance ? int64_t(L) * bins : 0);
    for (int64_t group = first; group < last; ++group) {
      const int64_t begin = group * L, end = smaller(begin + L, frames);
      const float *magnitudes[L], *phases[L];
      for (int i = 0; i < L; ++i) {
        const int64_t frame = smaller(begin + i, end - 1);
        const int b = active[frame / s.rows];
        magnitudes[i] = p.x + (int64_t(b) * s.rows + frame % s.rows) * 2 * bins;
        phases[i] = magnitudes[i] + bins;
        if (!p.advance) continue;
        const int64_t position = s.position[b] + frame % s.rows;
        const float* more = p.advance + (position % p.period + p.period) % p.period * bins;
        float* sum = turned.get() + int64_t(i) * bins;
        for (int k = 0; k < bins; ++k) sum[k] = phases[i][k] + more[k];
        phases[i] = sum;
      }
      float* const a = scratch.a.get();
      read_columns(magnitudes, bins, [&](int k, Vec<float> v) {
        const Vec<float> magnitude = exp(v);
        store<float>(a + int64_t(2 * k) * L, magnitude > p.max_magnitude ? broadcast(p.max_magnitude) : magnitude);
      });
      read_columns(phases, bins, [&](int k, Vec<float> v) {
        const Vec<float> magnitude = load(a + int64_t(2 * k) * L);
        Vec<float> sine, cosine;
        sincos(v, sine, cosine);
        store_point<float>(a, k, {magnitude * cosine, magnitude * sine});
      });
      const float* rows = synthesize_rows(scratch, a, end - begin);
      std::memcpy(made.get() + begin * p.n_fft, rows, size_t(end - begin) * p.n_fft * sizeof(float));
    }
  });
  parallel_for(count, 1, [&](int64_t begin, int64_t stop) {
    const int64_t length = int64_t(s.rows) * p.hop + rest;
    const Scratch<float> signal(length), envelope(length);
    for (int64_t i = begin; i < stop; ++i) {
      const int b = active[i];
      float* const carry = p.carry + int64_t(b) * 2 * rest;
      std::memset(signal.get(), 0, size_t(length) * sizeof(float));
      std::memset(envelope.get(), 0, size_t(length) * sizeof(float));
      std::memcpy(signal.get(), carry, size_t(rest) * sizeof(float));
      std::memcpy(envelope.get(), carry + rest, size_t(rest) * sizeof(float));
      for (int t = 0; t < s.rows; ++t) {
        const int64_t position = s.position[b] + t, start = int64_t(t) * p.hop;
        if (position < 0 || position >= s.end[b]) continue;
        add_frame(made.get() + (i * s.rows + t) * p.n_fft, window.get(), p.n_fft, start, 0, length, signal.get());
        add_frame(p.window, p.window, p.n_fft, start, 0, length, envelope.get());
      }
      float* const out = p.out + int64_t(b) * s.rows * p.hop;
      for (int64_t j = 0; j < length - rest; ++j) {
        const float weight = envelope[j];
        out[j] = signal[j] / (weight > std::numeric_limits<float>::min() ? weight : std::numeric_limits<float>::min());
      }
      std::memcpy(carry, signal.get() + length - rest, size_t(rest) * sizeof(float));
      std::memcpy(carry + rest, envelope.get() + length - rest, size_t(rest) * sizeof(float));
    }
  });
}

}  // namespace

void stream_layers(const StreamLayersParams& p) { MIMO_FLOAT_OR_HALF(p.dtype, StreamLayers<T>(p).run()); }

void stream_up_convolution(const StreamUpConvolutionParams& p) {
  MIMO_FLOAT_OR_HALF(p.dtype, UpConvolution<T>(p).run());
}

void stream_istft(const StreamIstftParams& p) { istft(p); }

}  // namespace mimo::cpu::MIMO_ISA
