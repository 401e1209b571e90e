#include <array>

#include "skein/base/check.h"
#include "skein/io/gguf.h"
#include "skein/io/gguf_types.h"

namespace skein {
namespace {

struct TypeRow {
  std::uint32_t number;
  std::string_view name;
  GgmlBlock block;  // of the types that Skein reads
};

// ggml.h's numbers; those without a block are known by name only, for the error.
constexpr std::array<TypeRow, 35> kRows{{
    {0, "F32", {1, 4}},       {1, "F16", {1, 2}},    {2, "Q4_0", {32, 18}},    {3, "Q4_1", {32, 20}},
    {6, "Q5_0", {32, 22}},    {7, "Q5_1", {32, 24}}, {8, "Q8_0", {32, 34}},    {9, "Q8_1", {}},
    {10, "Q2_K", {}},         {11, "Q3_K", {}},      {12, "Q4_K", {256, 144}}, {13, "Q5_K", {256, 176}},
    {14, "Q6_K", {256, 210}}, {15, "Q8_K", {}},      {16, "IQ2_XXS", {}},      {17, "IQ2_XS", {}},
    {18, "IQ3_XXS", {}},      {19, "IQ1_S", {}},     {20, "IQ4_NL", {}},       {21, "IQ3_S", {}},
    {22, "IQ2_S", {}},        {23, "IQ4_XS", {}},    {24, "I8", {}},           {25, "I16", {}},
    {26, "I32", {}},          {27, "I64", {}},       {28, "F64", {}},          {29, "IQ1_M", {}},
    {30, "BF16", {1, 2}},     {34, "TQ1_0", {}},     {35, "TQ2_0", {}},        {39, "MXFP4", {}},
    {40, "NVFP4", {}},        {4, "Q4_2", {}},       {5, "Q4_3", {}},
}};

const TypeRow* row_of(std::uint32_t number) {
  for (const auto& row : kRows) {
    if (row.number == number) return &row;
  }
  return nullptr;
}

}  // namespace

std::optional<GgmlType> ggml_type_from_number(std::uint32_t number) {
  const auto* row = row_of(number);
  if (row == nullptr || row->block.bytes == 0) return std::nullopt;
  return static_cast<GgmlType>(number);
}

std::string_view ggml_name_of_number(std::uint32_t number) {
  const auto* row = row_of(number);
  return row == nullptr ? "unknown" : row->name;
}

std::string_view ggml_type_name(GgmlType type) { return ggml_name_of_number(static_cast<std::uint32_t>(type)); }

GgmlBlock ggml_block(GgmlType type) {
  const auto* row = row_of(static_cast<std::uint32_t>(type));
  SKEIN_CHECK(row != nullptr && row->block.bytes > 0);
  return row->block;
}

}  // namespace skein
