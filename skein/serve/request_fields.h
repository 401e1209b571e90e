// The fields of a request's JSON object, taken one by one: each with its kind and range, unknown ones refused.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "skein/serve/api_error.h"

namespace skein {

// Every function throws ApiFailure (400, naming the field) on a value of another kind or out of range. Null is as if
// absent. The object is borrowed.
class RequestFields {
 public:
  // prefix: in front of the keys in messages ("router.").
  explicit RequestFields(const Json& object, std::string prefix = "");

  const Json* find(const std::string& key);  // null: absent
  std::optional<std::string> text(const std::string& key);
  std::optional<bool> boolean(const std::string& key);
  // A number without a fraction: 1 and 1.0, not 1.5 nor "1".
  std::optional<std::int64_t> integer(const std::string& key, std::int64_t least, std::int64_t most);
  std::optional<double> number(const std::string& key, double least, double most);
  std::vector<std::string> texts(const std::string& key, std::size_t max_count);  // absent: none

  // Known, of no effect here.
  void ignore(const std::vector<std::string>& keys);
  // Known, and not offered: an error unless absent, null, false or empty.
  void refuse(const std::vector<std::string>& keys);
  // Call last: an error if there is a field that nobody asked for.
  void finish() const;

  [[noreturn]] void fail(const std::string& key, const std::string& why) const;

 private:
  const Json& object_;
  std::string prefix_;
  std::vector<std::string> known_;
};

// "a string", "a number": for messages.
std::string json_kind(const Json& value);

}  // namespace skein
