// torch.ops.mimo.rvq_*: schemas, checks, allocation, dispatch. Definition: mimo_audio_native/reference/rvq.py.
#include "mimo/rvq.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>

#include "common/torch_api.h"

namespace mimo {
namespace {

// Checks R codebooks [K_r, D] and makes them contiguous; `hold` keeps the copies alive.
Codebooks codebooks_of(const char* op, const std::vector<Tensor>& tensors, std::vector<Tensor>& hold) {
  MIMO_CHECK(!tensors.empty(), op, ": codebooks must hold at least one tensor [K, D], got none");
  MIMO_CHECK(tensors.size() <= size_t(kMaxCodebooks), op, ": codebooks must hold at most ", kMaxCodebooks,
             " tensors, got ", tensors.size());
  Codebooks out{};
  out.layers = int32_t(tensors.size());
  for (size_t r = 0; r < tensors.size(); ++r) {
    const std::string name = "codebooks[" + std::to_string(r) + "]";
    const Tensor& t = tensors[r];
    check_dim(op, name.c_str(), t, 2, "[K, D]");
    check_dtype(op, name.c_str(), t, {ScalarType::Float, ScalarType::Double});
    check_same_dtype(op, name.c_str(), t, "codebooks[0]", tensors[0]);
    check_same_device(op, name.c_str(), t, "codebooks[0]", tensors[0]);
    MIMO_CHECK(t.size(1) == tensors[0].size(1), op, ": ", name, " must have the width D of codebooks[0] (",
               tensors[0].size(1), "), got ", describe(t));
    MIMO_CHECK(t.size(0) > 0 && t.size(1) > 0, op, ": ", name, " must not be empty, got ", describe(t));
    MIMO_CHECK(t.size(0) <= kMaxEntries && t.size(1) <= kMaxEntries, op, ": ", name, " must have at most ", kMaxEntries,
               " rows and columns, got ", describe(t));
    hold.push_back(torch::stable::contiguous(t));
    out.entries[r] = hold.back().const_data_ptr();
    out.sizes[r] = int32_t(t.size(0));
  }
  out.dim = int32_t(tensors[0].size(1));
  return out;
}

void check_codes(const char* op, const Tensor& codes, const Tensor& codebook) {
  check_dim(op, "codes", codes, 2, "[R, N]");
  check_dtype(op, "codes", codes, {ScalarType::Long});
  check_same_device(op, "codes", codes, "codebooks[0]", codebook);
}

void check_code_range(const char* op, const int64_t* codes, int64_t count, const Codebooks& codebooks) {
  for (int64_t r = 0; r < codebooks.layers; ++r) {
    for (int64_t n = 0; n < count; ++n) {
      const int64_t code = codes[r * count + n];
      MIMO_CHECK(code >= 0 && code < codebooks.sizes[r], op, ": codes[", r, ", ", n, "] must be in 0 .. ",
                 codebooks.sizes[r] - 1, ", got ", code);
    }
  }
}

Tensor rvq_decode(const Tensor& codes, const std::vector<Tensor>& codebooks) {
  const char* op = "rvq_decode";
  std::vector<Tensor> hold;
  RvqDecodeParams p{};
  p.codebooks = codebooks_of(op, codebooks, hold);
  check_codes(op, codes, codebooks[0]);
  MIMO_CHECK(codes.size(0) <= p.codebooks.layers, op, ": codes must have at most ", p.codebooks.layers,
             " rows (one per codebook), got ", describe(codes));
  const Tensor dense = torch::stable::contiguous(codes);
  p.codebooks.layers = int32_t(codes.size(0));
  p.codes = dense.const_data_ptr<int64_t>();
  p.count = codes.size(1);
  p.dtype = dtype_of(op, "codebooks[0]", codebooks[0]);
  if (!runs_cuda_kernels(codes)) check_code_range(op, p.codes, p.count, p.codebooks);
  Tensor out = torch::stable::new_empty(codebooks[0], {p.count, p.codebooks.dim});
  p.out = out.mutable_data_ptr();
  MIMO_RUN(op, codes, rvq_decode, p);
  return out;
}

void check_x(const char* op, const Tensor& x, const std::vector<Tensor>& codebooks) {
  check_dim(op, "x", x, 2, "[N, D]");
  check_same_dtype(op, "x", x, "codebooks[0]", codebooks[0]);
  check_same_device(op, "x", x, "codebooks[0]", codebooks[0]);
  MIMO_CHECK(x.size(1) == codebooks[0].size(1), op, ": x must have the width D of codebooks[0] (", codebooks[0].size(1),
             "), got ", describe(x));
}

int64_t entries_of(const Codebooks& codebooks) {
  int64_t total = 0;
  for (int r = 0; r < codebooks.layers; ++r) total += codebooks.sizes[r];
  return total;
}

// The tables of the CUDA search, and the tensors that hold them; all empty where the CPU searches.
struct Tables {
  Tensor entries, norms, products;
  RvqTables pointers() const {
    return {entries.mutable_data_ptr(), norms.mutable_data_ptr<float>(), products.mutable_data_ptr<float>()};
  }
};

struct TableSizes {
  int64_t entries, norms, products;
};

TableSizes table_sizes(const Codebooks& codebooks, const Tensor& like, DType dtype) {
  if (!runs_cuda_kernels(like) || dtype != DType::f32) return {0, 0, 0};
  const RvqLayout layout = rvq_layout(codebooks);
  const int64_t total = layout.offset[codebooks.layers];
  return {rvq_packed_size(total, codebooks.dim), 2 * total, layout.products[codebooks.layers]};
}

Tables make_tables([[maybe_unused]] const char* op, const Codebooks& codebooks, const Tensor& like) {
  const TableSizes sizes = table_sizes(codebooks, like, dtype_of(op, "codebooks[0]", like));
  Tables out{torch::stable::new_empty(like, {sizes.entries}, ScalarType::BFloat16),
             torch::stable::new_empty(like, {sizes.norms}, ScalarType::Float),
             torch::stable::new_empty(like, {sizes.products}, ScalarType::Float)};
  if (sizes.entries > 0) {
    RvqTablesParams p{codebooks, out.pointers()};
    MIMO_RUN_ON_DEVICE(op, like, rvq_tables, p);
  }
  return out;
}

std::tuple<Tensor, Tensor, Tensor> rvq_tables(const std::vector<Tensor>& codebooks) {
  std::vector<Tensor> hold;
  const Codebooks books = codebooks_of("rvq_tables", codebooks, hold);
  const Tables tables = make_tables("rvq_tables", books, codebooks[0]);
  return {tables.entries, tables.norms, tables.products};
}

// Given tables, of these codebooks or of more that begin with them.
Tables check_tables(const char* op, const std::vector<Tensor>& given, const Codebooks& codebooks, const Tensor& x) {
  MIMO_CHECK(given.size() == 3, op, ": tables must be the 3 tensors of rvq_tables, got ", given.size());
  const TableSizes sizes = table_sizes(codebooks, x, dtype_of(op, "x", x));
  const int64_t wanted[3] = {sizes.entries, sizes.norms, sizes.products};
  for (size_t i = 0; i < 3; ++i) {
    const std::string name = "tables[" + std::to_string(i) + "]";
    check_dim(op, name.c_str(), given[i], 1, "[elements]");
    check_dtype(op, name.c_str(), given[i], {i == 0 ? ScalarType::BFloat16 : ScalarType::Float});
    check_same_device(op, name.c_str(), given[i], "x", x);
    MIMO_CHECK(given[i].size(0) >= wanted[i] && given[i].is_contiguous(), op, ": ", name,
               " must be rvq_tables' of these codebooks (", wanted[i], " elements), got ", describe(given[i]));
  }
  return {given[0], given[1], given[2]};
}

struct Search {
  Tensor x, codes;  // x contiguous
  Codebooks codebooks;
  std::vector<Tensor> row_squares;  // [layers + 1, count], of the CPU's search only
};

// The CPU's search, which tells NaN and infinity in its float64 squares: they are finite exactly if the numbers are, up
// to 1e150 in float64 input.
void search_on_cpu(const char* op, Search& s, RvqSearchParams p) {
  const Tensor entry_squares = torch::stable::new_empty(s.x, {entries_of(s.codebooks)}, ScalarType::Double);
  s.row_squares = {torch::stable::new_empty(s.x, {s.codebooks.layers + 1, p.count}, ScalarType::Double)};
  p.row_squares = s.row_squares[0].mutable_data_ptr<double>();
  p.entry_squares = entry_squares.mutable_data_ptr<double>();
  if (p.count == 0) return;
  MIMO_RUN(op, s.x, rvq_search, p);
  for (int64_t r = 0, at = 0; r < s.codebooks.layers; ++r) {
    for (int64_t k = 0; k < s.codebooks.sizes[r]; ++k, ++at) {
      MIMO_CHECK(std::isfinite(p.entry_squares[at]), op, ": codebooks[", r,
                 "] must be finite, got NaN or infinity in entry ", k);
    }
  }
  for (int64_t n = 0; n < p.count; ++n) {
    MIMO_CHECK(std::isfinite(p.row_squares[n]), op, ": x must be finite, got NaN or infinity in row ", n);
  }
}

void search_on_device(const char* op, const Search& s, RvqSearchParams p, const Tables& tables) {
  const int64_t rows = rvq_rows_per_pass(p.count), dim = s.codebooks.dim;
  const bool screens = p.dtype == DType::f32;
  const Tensor residual = torch::stable::new_empty(s.x, {rows, dim});
  const Tensor dots = torch::stable::new_empty(s.x, {screens ? rows : 0, entries_of(s.codebooks)}, ScalarType::Float);
  const int64_t packed_size = screens && rows > kRvqFewRows ? rvq_packed_size(rows, s.codebooks.dim) : 0;
  const Tensor packed = torch::stable::new_empty(s.x, {packed_size}, ScalarType::BFloat16);
  p.tables = tables.pointers();
  p.residual = residual.mutable_data_ptr();
  p.dots = dots.mutable_data_ptr<float>();
  p.packed = packed.mutable_data_ptr();
  MIMO_RUN(op, s.x, rvq_search, p);
}

Search search(const char* op, const Tensor& x, const std::vector<Tensor>& tensors, std::vector<Tensor>& hold,
              const std::vector<Tensor>* given) {
  const Codebooks books = codebooks_of(op, tensors, hold);
  check_x(op, x, tensors);
  Search s{torch::stable::contiguous(x),
           torch::stable::new_empty(x, {books.layers, x.size(0)}, ScalarType::Long),
           books,
           {}};
  RvqSearchParams p{};
  p.codebooks = books;
  p.x = s.x.const_data_ptr();
  p.codes = s.codes.mutable_data_ptr<int64_t>();
  p.count = x.size(0);
  p.dtype = dtype_of(op, "x", x);
  std::optional<Tables> tables;
  if (given) tables = check_tables(op, *given, books, x);
  if (!runs_cuda_kernels(x)) {
    search_on_cpu(op, s, p);
  } else if (p.count > 0) {
    search_on_device(op, s, p, tables ? *tables : make_tables(op, books, x));
  }
  return s;
}

Tensor rvq_encode(const Tensor& x, const std::vector<Tensor>& codebooks,
                  const std::optional<std::vector<Tensor>>& tables) {
  std::vector<Tensor> hold;
  return search("rvq_encode", x, codebooks, hold, tables ? &*tables : nullptr).codes;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> rvq_quantize(const Tensor& x, const std::vector<Tensor>& codebooks) {
  const char* op = "rvq_quantize";
  std::vector<Tensor> hold;
  const Search s = search(op, x, codebooks, hold, nullptr);
  const int64_t count = x.size(0), dim = x.size(1), total = entries_of(s.codebooks);
  const bool on_cuda = runs_cuda_kernels(x);
  MIMO_CHECK(!on_cuda || count <= INT32_MAX, op, ": x must have at most ", INT32_MAX, " rows, got ", describe(x));

  Tensor quantized = torch::stable::new_empty(x, {count, dim});
  RvqDecodeParams decode{};
  decode.codebooks = s.codebooks;
  decode.codes = s.codes.const_data_ptr<int64_t>();
  decode.out = quantized.mutable_data_ptr();
  decode.count = count;
  decode.dtype = dtype_of(op, "x", x);
  MIMO_RUN(op, x, rvq_decode, decode);

  Tensor commitment = torch::stable::new_empty(x, {s.codebooks.layers});
  Tensor counts = torch::stable::new_empty(x, {total});
  Tensor sums = torch::stable::new_empty(x, {total, dim});
  Tensor residual = torch::stable::new_empty(x, {on_cuda ? count : 0, dim});
  Tensor order =
      torch::stable::new_empty(x, {on_cuda ? rvq_order_size(s.codebooks.layers, count, total) : 0}, ScalarType::Int);
  const Tensor row_squares =
      on_cuda ? torch::stable::new_empty(x, {s.codebooks.layers + 1, count}, ScalarType::Double) : s.row_squares[0];
  RvqStatisticsParams p{};
  p.codebooks = s.codebooks;
  p.x = s.x.const_data_ptr();
  p.codes = decode.codes;
  p.row_squares = row_squares.mutable_data_ptr<double>();
  p.commitment = commitment.mutable_data_ptr();
  p.counts = counts.mutable_data_ptr();
  p.sums = sums.mutable_data_ptr();
  p.residual = residual.mutable_data_ptr();
  p.order = order.mutable_data_ptr<int32_t>();
  p.count = count;
  p.dtype = decode.dtype;
  MIMO_RUN(op, x, rvq_statistics, p);
  return {quantized, s.codes, commitment, counts, sums};
}

Tensor rvq_quantize_backward(const Tensor& grad_quantized, const Tensor& grad_commitment, const Tensor& x,
                             const Tensor& codes, const std::vector<Tensor>& codebooks) {
  const char* op = "rvq_quantize_backward";
  std::vector<Tensor> hold;
  RvqBackwardParams p{};
  p.codebooks = codebooks_of(op, codebooks, hold);
  check_x(op, x, codebooks);
  check_codes(op, codes, codebooks[0]);
  const auto check_like_x = [&](const char* name, const Tensor& t, std::initializer_list<int64_t> sizes) {
    check_dim(op, name, t, int64_t(sizes.size()), sizes.size() == 1 ? "[R]" : "[N, D]");
    check_same_dtype(op, name, t, "x", x);
    check_same_device(op, name, t, "x", x);
    int64_t i = 0;
    for (int64_t size : sizes) {
      MIMO_CHECK(t.size(i) == size, op, ": ", name, " must have size ", size, " in dimension ", i, ", got ",
                 describe(t));
      ++i;
    }
  };
  check_like_x("grad_quantized", grad_quantized, {x.size(0), x.size(1)});
  check_like_x("grad_commitment", grad_commitment, {p.codebooks.layers});
  MIMO_CHECK(codes.size(0) == p.codebooks.layers && codes.size(1) == x.size(0), op, ": codes must be [",
             p.codebooks.layers, ", ", x.size(0), "], got ", describe(codes));
  for (const Tensor* t : {&grad_quantized, &grad_commitment, &x, &codes}) hold.push_back(torch::stable::contiguous(*t));
  const Tensor* dense = &hold[hold.size() - 4];
  p.grad_quantized = dense[0].const_data_ptr();
  p.grad_commitment = dense[1].const_data_ptr();
  p.x = dense[2].const_data_ptr();
  p.codes = dense[3].const_data_ptr<int64_t>();
  p.count = x.size(0);
  p.dtype = dtype_of(op, "x", x);
  if (!runs_cuda_kernels(codes)) check_code_range(op, p.codes, p.count, p.codebooks);
  Tensor grad_x = torch::stable::new_empty(x, {p.count, p.codebooks.dim});
  p.grad_x = grad_x.mutable_data_ptr();
  MIMO_RUN(op, x, rvq_quantize_backward, p);
  return grad_x;
}

}  // namespace
}  // namespace mimo

MIMO_DEF(m.def("rvq_decode(Tensor codes, Tensor[] codebooks) -> Tensor");
         m.def("rvq_tables(Tensor[] codebooks) -> (Tensor entries, Tensor norms, Tensor products)");
         m.def("rvq_encode(Tensor x, Tensor[] codebooks, Tensor[]? tables=None) -> Tensor");
         m.def("rvq_quantize(Tensor x, Tensor[] codebooks) -> (Tensor quantized, Tensor codes, Tensor commitment, "
               "Tensor counts, Tensor sums)");
         m.def("rvq_quantize_backward(Tensor grad_quantized, Tensor grad_commitment, Tensor x, Tensor codes, "
               "Tensor[] codebooks) -> Tensor");)
MIMO_IMPL(m.impl("rvq_tables", TORCH_BOX(&mimo::rvq_tables)); m.impl("rvq_decode", TORCH_BOX(&mimo::rvq_decode));
          m.impl("rvq_encode", TORCH_BOX(&mimo::rvq_encode)); m.impl("rvq_quantize", TORCH_BOX(&mimo::rvq_quantize));
          m.impl("rvq_quantize_backward", TORCH_BOX(&mimo::rvq_quantize_backward));)
