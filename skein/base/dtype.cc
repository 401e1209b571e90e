#include "skein/base/dtype.h"

#include <array>

#include "skein/base/check.h"

namespace skein {
namespace {

struct DTypeRow {
  DType dtype;
  std::string_view name;
  std::int64_t size_bytes;
  bool floating;
};

constexpr std::array<DTypeRow, 15> kRows{{
    {DType::kF64, "F64", 8, true},        {DType::kF32, "F32", 4, true},        {DType::kF16, "F16", 2, true},
    {DType::kBF16, "BF16", 2, true},      {DType::kF8E4M3, "F8_E4M3", 1, true}, {DType::kF8E5M2, "F8_E5M2", 1, true},
    {DType::kI64, "I64", 8, false},       {DType::kI32, "I32", 4, false},       {DType::kI16, "I16", 2, false},
    {DType::kI8, "I8", 1, false},         {DType::kU64, "U64", 8, false},       {DType::kU32, "U32", 4, false},
    {DType::kU16, "U16", 2, false},       {DType::kU8, "U8", 1, false},         {DType::kBool, "BOOL", 1, false},
}};

const DTypeRow& row_of(DType dtype) {
  const auto& row = kRows.at(static_cast<std::size_t>(dtype));
  SKEIN_CHECK(row.dtype == dtype);
  return row;
}

}  // namespace

std::int64_t dtype_size(DType dtype) { return row_of(dtype).size_bytes; }
std::string_view dtype_name(DType dtype) { return row_of(dtype).name; }
bool is_floating(DType dtype) { return row_of(dtype).floating; }

std::optional<DType> dtype_from_name(std::string_view safetensors_name) {
  for (const auto& row : kRows) {
    if (row.name == safetensors_name) return row.dtype;
  }
  return std::nullopt;
}

}  // namespace skein
