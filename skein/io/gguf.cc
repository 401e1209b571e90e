#include "skein/io/gguf.h"

#include <algorithm>

#include "skein/base/concat.h"

namespace skein {
namespace {

std::string kind_name(const GgufValue& value) {
  constexpr const char* kNames[] = {"an unsigned integer", "an integer",        "a number",
                                    "true or false",       "a string",          "a list of unsigned integers",
                                    "a list of integers",  "a list of numbers", "a list of booleans",
                                    "a list of strings"};
  return kNames[value.index()];
}

}  // namespace

const GgufTensor* GgufFile::find_tensor(const std::string& name) const {
  const auto found =
      std::find_if(tensors_.begin(), tensors_.end(), [&](const auto& tensor) { return tensor.name == name; });
  return found == tensors_.end() ? nullptr : &*found;
}

const GgufValue* GgufFile::find(const std::string& key) const {
  const auto found = std::lower_bound(metadata_.begin(), metadata_.end(), key,
                                      [](const auto& pair, const std::string& wanted) { return pair.first < wanted; });
  return found == metadata_.end() || found->first != key ? nullptr : &found->second;
}

Result<std::int64_t> GgufFile::integer(const std::string& key, std::optional<std::int64_t> otherwise) const {
  const GgufValue* value = find(key);
  if (value == nullptr && otherwise) return *otherwise;
  if (value == nullptr) return Error{concat(path_, ": the key \"", key, "\" is missing")};
  if (const auto* signed_value = std::get_if<std::int64_t>(value)) return *signed_value;
  if (const auto* plain = std::get_if<std::uint64_t>(value);
      plain != nullptr && *plain <= static_cast<std::uint64_t>(INT64_MAX)) {
    return static_cast<std::int64_t>(*plain);
  }
  return Error{concat(path_, ": \"", key, "\" is ", kind_name(*value), "; an integer below 2^63 was expected")};
}

Result<double> GgufFile::number(const std::string& key, std::optional<double> otherwise) const {
  const GgufValue* value = find(key);
  if (value == nullptr && otherwise) return *otherwise;
  if (value == nullptr) return Error{concat(path_, ": the key \"", key, "\" is missing")};
  if (const auto* fraction = std::get_if<double>(value)) return *fraction;
  if (const auto* signed_value = std::get_if<std::int64_t>(value)) return static_cast<double>(*signed_value);
  if (const auto* plain = std::get_if<std::uint64_t>(value)) return static_cast<double>(*plain);
  return Error{concat(path_, ": \"", key, "\" is ", kind_name(*value), "; a number was expected")};
}

Result<std::string> GgufFile::text(const std::string& key, std::optional<std::string> otherwise) const {
  const GgufValue* value = find(key);
  if (value == nullptr && otherwise) return *otherwise;
  if (value == nullptr) return Error{concat(path_, ": the key \"", key, "\" is missing")};
  if (const auto* found = std::get_if<std::string>(value)) return *found;
  return Error{concat(path_, ": \"", key, "\" is ", kind_name(*value), "; a string was expected")};
}

}  // namespace skein
