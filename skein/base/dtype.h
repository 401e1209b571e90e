// Element types as files spell them.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace skein {

enum class DType : std::uint8_t {
  kF64, kF32, kF16, kBF16, kF8E4M3, kF8E5M2, kI64, kI32, kI16, kI8, kU64, kU32, kU16, kU8, kBool,
};

// Bytes per element.
std::int64_t dtype_size(DType dtype);
// safetensors' spelling: "F32", "BF16", "F8_E4M3", ...
std::string_view dtype_name(DType dtype);
std::optional<DType> dtype_from_name(std::string_view safetensors_name);
bool is_floating(DType dtype);

}  // namespace skein
