// Who may ask: API keys, and the names a server on this machine may be called by.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/env.h"

namespace skein {

class ApiKeys {
 public:
  ApiKeys() = default;  // none: everyone may ask
  // One key a line, 8 to 256 visible characters; blank lines and lines that begin with # are left out. At least one.
  static Result<ApiKeys> read(Env& env, const std::string& path);

  bool is_open() const { return keys_.empty(); }
  // Which key the header's value, "Bearer KEY", holds (any number if open); nothing: none of them. Takes the same time
  // whichever key it is, and wherever it differs.
  std::optional<int> key_of(std::optional<std::string_view> authorization) const;

 private:
  static constexpr std::size_t kMaxBytes = 256;
  std::vector<std::string> keys_;  // each padded to kMaxBytes, its length behind
  static std::string padded(std::string_view key);
};

// Whether a server that listens on `bound` answers to this Host header. A page of another site whose name was made to
// point here (DNS rebinding) carries that name: servers of this machine alone answer to loopback names, and to
// `allowed`.
bool is_expected_host(std::string_view host, const std::string& bound, const std::vector<std::string>& allowed);

}  // namespace skein
