#include "skein/io/safetensors_header.h"

#include <algorithm>

#include "skein/base/concat.h"
#include "skein/io/foreign_file.h"
#include "skein/io/json.h"

namespace skein {
namespace {

constexpr std::uint64_t kLengthBytes = 8;

std::uint64_t little_endian_64(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | static_cast<std::uint64_t>(bytes[static_cast<std::size_t>(i)]);
  return value;
}

Error not_safetensors(const std::string& path, std::span<const std::byte> file, std::string why) {
  const std::string hint = foreign_file_hint(file);
  return {concat(path, " is not a safetensors file: ", hint.empty() ? why : hint)};
}

// A list of non-negative integers.
Result<std::vector<std::int64_t>> sizes_of(const Json& entry, const char* key, const std::string& where) {
  const auto found = entry.find(key);
  if (found == entry.end() || !found->is_array()) {
    return Error{concat(where, ": \"", key, "\" is missing or not a list")};
  }
  std::vector<std::int64_t> sizes;
  for (const Json& element : *found) {
    if (!element.is_number_unsigned() || element.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX)) {
      return Error{concat(where, ": \"", key, "\" holds ", printable(element.dump(), 40),
                          "; integers from 0 to 2^63 - 1 were expected")};
    }
    sizes.push_back(element.get<std::int64_t>());
  }
  return sizes;
}

Result<TensorView> parse_entry(const Json& entry, std::span<const std::byte> data, const std::string& where) {
  if (!entry.is_object()) return Error{concat(where, ": found ", entry.type_name(), "; an object was expected")};
  for (const auto& [key, value] : entry.items()) {
    if (key != "dtype" && key != "shape" && key != "data_offsets") {
      return Error{concat(where, ": unknown key \"", printable(key), "\"")};
    }
  }
  SKEIN_ASSIGN(const std::string dtype_text, json_string(entry, "dtype", std::nullopt, where));
  const auto dtype = dtype_from_name(dtype_text);
  if (!dtype) return Error{concat(where, ": element type \"", printable(dtype_text), "\" is not one Skein reads")};
  SKEIN_ASSIGN(Shape shape, sizes_of(entry, "shape", where));
  SKEIN_ASSIGN(const auto offsets, sizes_of(entry, "data_offsets", where));
  if (offsets.size() != 2) return Error{concat(where, ": ", offsets.size(), " data offsets; two were expected")};

  const auto numel = checked_numel(shape);
  const auto size = numel ? checked_mul(*numel, dtype_size(*dtype)) : std::nullopt;
  if (!size) return Error{concat(where, ": the product of the shape ", to_string(shape), " overflows")};
  const auto [begin, end] = std::pair(offsets[0], offsets[1]);
  if (begin > end) return Error{concat(where, ": data begins at ", begin, " after its end at ", end)};
  if (static_cast<std::uint64_t>(end) > data.size()) {
    return Error{concat(where, ": data ends at byte ", end, " of ", data.size(), " in the file; was it cut short?")};
  }
  if (end - begin != *size) {
    return Error{concat(where, ": ", dtype_text, " of shape ", to_string(shape), " needs ", *size,
                        " bytes; its offsets give ", end - begin)};
  }
  const auto bytes = data.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
  return TensorView{*dtype, std::move(shape), bytes};
}

Result<std::vector<std::pair<std::string, std::string>>> parse_metadata(const Json& metadata,
                                                                        const std::string& where) {
  if (!metadata.is_object()) return Error{concat(where, ": found ", metadata.type_name(), "; an object was expected")};
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const auto& [key, value] : metadata.items()) {
    if (!value.is_string()) {
      return Error{concat(where, ": \"", printable(key), "\" is ", value.type_name(), "; a string was expected")};
    }
    pairs.emplace_back(key, value.get<std::string>());
  }
  std::sort(pairs.begin(), pairs.end());
  return pairs;
}

// The format: every byte of the data belongs to exactly one tensor.
Status check_cover(const std::vector<NamedTensor>& tensors, std::span<const std::byte> data, const std::string& path) {
  std::vector<const NamedTensor*> order;
  order.reserve(tensors.size());
  for (const auto& tensor : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const NamedTensor* a, const NamedTensor* b) {
    const auto* first = a->tensor.bytes.data();
    const auto* second = b->tensor.bytes.data();
    return first != second ? first < second : a->tensor.bytes.size() < b->tensor.bytes.size();
  });
  const std::byte* reached = data.data();
  for (const auto* next : order) {
    const auto& bytes = next->tensor.bytes;
    if (bytes.data() < reached) {
      return Error{concat(path, ": the bytes of tensor \"", printable(next->name), "\" overlap another tensor's")};
    }
    if (bytes.data() > reached) {
      return Error{concat(path, ": ", bytes.data() - reached, " bytes before tensor \"", printable(next->name),
                          "\" belong to no tensor")};
    }
    reached = bytes.data() + bytes.size();
  }
  if (const auto left = data.data() + data.size() - reached; left > 0) {
    return Error{concat(path, ": ", left, " bytes at the end belong to no tensor; is it two files in one?")};
  }
  return {};
}

}  // namespace

Result<SafetensorsHeader> parse_safetensors(std::span<const std::byte> file, const std::string& path,
                                            const SafetensorsLimits& limits) {
  if (file.size() < kLengthBytes) {
    return not_safetensors(path, file, concat("it has ", file.size(), " bytes; at least 8 were expected"));
  }
  const std::uint64_t length = little_endian_64(file);
  const std::uint64_t rest = file.size() - kLengthBytes;
  if (length > limits.max_header_bytes) {
    return not_safetensors(
        path, file, concat("its header claims ", length, " bytes; at most ", limits.max_header_bytes, " are accepted"));
  }
  if (length > rest) {
    return not_safetensors(
        path, file, concat("its header claims ", length, " bytes; ", rest, " are left in the file; was it cut short?"));
  }
  const std::string text(reinterpret_cast<const char*>(file.data()) + kLengthBytes, length);
  if (!text.starts_with('{')) return not_safetensors(path, file, "its header does not begin with \"{\"");
  SKEIN_ASSIGN(const Json document, parse_json(text, concat(path, " (header)")));

  const auto data = file.subspan(kLengthBytes + length);
  SafetensorsHeader header;
  header.tensors.reserve(document.size());
  for (const auto& [name, entry] : document.items()) {
    if (name == "__metadata__") {
      SKEIN_ASSIGN(header.metadata, parse_metadata(entry, concat(path, ": __metadata__")));
      continue;
    }
    if (header.tensors.size() >= limits.max_tensors) {
      return Error{concat(path, " holds more than ", limits.max_tensors, " tensors, the most that are accepted")};
    }
    SKEIN_ASSIGN(TensorView view, parse_entry(entry, data, concat(path, ": tensor \"", printable(name), "\"")));
    header.tensors.push_back({name, std::move(view)});
  }
  SKEIN_TRY(check_cover(header.tensors, data, path));
  std::sort(header.tensors.begin(), header.tensors.end(),
            [](const NamedTensor& a, const NamedTensor& b) { return a.name < b.name; });
  return header;
}

}  // namespace skein
