// Keeps the first error of many look-ups, so that reading a list of fields reads as a list.
#pragma once

#include <string>
#include <utility>

#include "skein/base/concat.h"
#include "skein/base/result.h"

namespace skein {

class FirstError {
 public:
  explicit FirstError(std::string where) : where_(std::move(where)) {}

  // The value, or T{} and the error, if it is the first.
  template <typename T>
  T keep(Result<T> result) {
    if (result.ok()) return std::move(result).value();
    if (status_.ok()) status_ = result.error();
    return T{};
  }
  void fail(const std::string& message) {
    if (status_.ok()) status_ = Error{concat(where_, ": ", message)};
  }
  const std::string& where() const { return where_; }
  const Status& status() const { return status_; }

 private:
  std::string where_;  // file, or file and part; begins the sentences of fail()
  Status status_;
};

}  // namespace skein
