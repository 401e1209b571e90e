// Result<T>: a value, or the sentence that says why there is none.
//
// The world's faults (a file, a request, a memory budget) travel as a Result; the program's own faults abort through
// skein/base/check.h. On the torch side, where libtorch throws anyway, or_throw() turns a Result into a Failure; a
// Failure is caught at two doors only: a command's main and a request handler.
//
// Thread-safety: as the value inside. Errors cost one allocation; success costs none.
#pragma once

#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "skein/base/check.h"

namespace skein {

// Which exit code an error asks for (docs: product, "Exit codes").
enum class ErrorKind {
  kFailed,       // 1: the work failed: bad file, no space, mismatch of shapes
  kUsage,        // 2: wrong usage
  kDifference,   // 3: a check found a difference
  kInterrupted,  // 130: Ctrl-C; what can be resumed is saved
};

// One sentence: [where] what was found; what was expected; the likely cause.
struct Error {
  std::string message;
  ErrorKind kind = ErrorKind::kFailed;
};

// What or_throw() throws; what() is the error's message.
class Failure : public std::runtime_error {
 public:
  explicit Failure(Error error) : std::runtime_error(error.message), error_(std::move(error)) {}
  const Error& error() const { return error_; }

 private:
  Error error_;
};

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}              // NOLINT: implicit on purpose
  Result(Error error) : error_(std::move(error)) {}          // NOLINT: implicit on purpose

  bool ok() const { return value_.has_value(); }
  explicit operator bool() const { return ok(); }

  // Require ok(): asking a failed Result for its value is the program's own fault.
  T& value() & {
    SKEIN_CHECK(ok());
    return *value_;
  }
  const T& value() const& {
    SKEIN_CHECK(ok());
    return *value_;
  }
  T&& value() && {
    SKEIN_CHECK(ok());
    return std::move(*value_);
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const Error& error() const {
    SKEIN_CHECK(!ok());
    return error_;
  }

 private:
  std::optional<T> value_;
  Error error_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT: implicit on purpose
  bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Error& error() const {
    SKEIN_CHECK(!ok());
    return *error_;
  }

 private:
  std::optional<Error> error_;
};

using Status = Result<void>;

// Where the torch-free side meets the torch side: the value, or a Failure thrown.
template <typename T>
T or_throw(Result<T> result) {
  if (!result.ok()) throw Failure(result.error());
  return std::move(result).value();
}
inline void or_throw(Status status) {
  if (!status.ok()) throw Failure(status.error());
}

}  // namespace skein

// SKEIN_TRY(status_expression): leaves the function with the error if there is one.
#define SKEIN_TRY(expression)                              \
  do {                                                     \
    auto skein_status_ = (expression);                     \
    if (!skein_status_.ok()) return skein_status_.error(); \
  } while (false)

#define SKEIN_CONCAT_INNER_(a, b) a##b
#define SKEIN_CONCAT_(a, b) SKEIN_CONCAT_INNER_(a, b)
#define SKEIN_ASSIGN_IMPL_(result, declaration, expression) \
  auto result = (expression);                               \
  if (!result.ok()) return result.error();                  \
  declaration = std::move(result).value()

// SKEIN_ASSIGN(auto file, env.open(path)): the value, or leaves the function with the error.
#define SKEIN_ASSIGN(declaration, expression) \
  SKEIN_ASSIGN_IMPL_(SKEIN_CONCAT_(skein_result_, __LINE__), declaration, expression)
