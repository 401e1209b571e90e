#include "skein/serve/request_fields.h"

#include <algorithm>
#include <cmath>

#include "skein/base/concat.h"
#include "skein/base/nearest_word.h"

namespace skein {

std::string json_kind(const Json& value) {
  if (value.is_null()) return "null";
  if (value.is_string()) return "a string";
  if (value.is_boolean()) return "a boolean";
  if (value.is_number()) return "a number";
  return value.is_array() ? "an array" : "an object";
}

RequestFields::RequestFields(const Json& object, std::string prefix) : object_(object), prefix_(std::move(prefix)) {
  if (object.is_object()) return;
  const std::string what = prefix_.empty() ? "the body" : prefix_.substr(0, prefix_.size() - 1);
  throw ApiFailure({.message = concat(what, " is ", json_kind(object), "; expected an object"),
                    .param = prefix_.empty() ? "" : what});
}

void RequestFields::fail(const std::string& key, const std::string& why) const {
  throw ApiFailure({.message = concat(prefix_, key, " ", why), .param = prefix_ + key});
}

const Json* RequestFields::find(const std::string& key) {
  known_.push_back(key);
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::optional<std::string> RequestFields::text(const std::string& key) {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) fail(key, concat("is ", json_kind(*value), "; expected a string"));
  return value->get<std::string>();
}

std::optional<bool> RequestFields::boolean(const std::string& key) {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) fail(key, concat("is ", json_kind(*value), "; expected true or false"));
  return value->get<bool>();
}

std::optional<std::int64_t> RequestFields::integer(const std::string& key, std::int64_t least, std::int64_t most) {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  const std::string expected = concat("expected a whole number from ", least, " to ", most);
  if (!value->is_number()) fail(key, concat("is ", json_kind(*value), "; ", expected));
  std::int64_t whole = 0;
  bool is_in_range = false;
  if (value->is_number_unsigned()) {
    is_in_range = value->get<std::uint64_t>() <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    if (is_in_range) whole = value->get<std::int64_t>();
  } else if (value->is_number_integer()) {
    whole = value->get<std::int64_t>();
    is_in_range = true;
  } else {
    const double real = value->get<double>();
    is_in_range = real == std::floor(real) && std::abs(real) <= 9007199254740992.0;  // 2^53: exact
    if (is_in_range) whole = static_cast<std::int64_t>(real);
  }
  if (!is_in_range || whole < least || whole > most) fail(key, concat("is ", value->dump(), "; ", expected));
  return whole;
}

std::optional<double> RequestFields::number(const std::string& key, double least, double most) {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  const std::string expected = concat("expected a number from ", least, " to ", most);
  if (!value->is_number()) fail(key, concat("is ", json_kind(*value), "; ", expected));
  const double real = value->get<double>();
  if (!(real >= least && real <= most)) fail(key, concat("is ", value->dump(), "; ", expected));
  return real;
}

std::vector<std::string> RequestFields::texts(const std::string& key, std::size_t max_count) {
  const Json* value = find(key);
  if (value == nullptr) return {};
  if (!value->is_array()) fail(key, concat("is ", json_kind(*value), "; expected an array of strings"));
  if (value->size() > max_count)
    fail(key, concat("has ", value->size(), " entries; at most ", max_count, " are allowed"));
  std::vector<std::string> texts;
  for (const Json& item : *value) {
    if (!item.is_string()) fail(key, concat("holds ", json_kind(item), "; expected strings"));
    texts.push_back(item.get<std::string>());
  }
  return texts;
}

void RequestFields::ignore(const std::vector<std::string>& keys) {
  known_.insert(known_.end(), keys.begin(), keys.end());
}

void RequestFields::refuse(const std::vector<std::string>& keys) {
  for (const std::string& key : keys) {
    const Json* value = find(key);
    if (value == nullptr || *value == Json(false) || (value->is_structured() && value->empty())) continue;
    throw ApiFailure({.message = concat(prefix_, key, " is not offered by this server; leave it out"),
                      .code = "unsupported_parameter",
                      .param = prefix_ + key});
  }
}

void RequestFields::finish() const {
  for (const auto& [key, value] : object_.items()) {
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    const auto nearest = key.size() < 64 ? nearest_word(key, known_) : std::nullopt;
    throw ApiFailure({.message = concat("unknown field '", prefix_, printable(key), "'",
                                        nearest ? concat(" (did you mean ", *nearest, "?)") : ""),
                      .code = "unknown_parameter",
                      .param = printable(prefix_ + key)});
  }
}

}  // namespace skein
