// Regular expressions of adapter configurations: Python's matching by PCRE2, with bounds on what a hostile one can
// cost.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "skein/base/result.h"

namespace skein {

class ModulePattern {
 public:
  enum class Anchor { kStart, kBoth };  // re.match, re.fullmatch
  // max_steps: of backtracking per match; more is an error, not a mismatch. where: file and field, for messages.
  static Result<ModulePattern> compile(const std::string& pattern, Anchor anchor, std::uint32_t max_steps,
                                       const std::string& where);

  Result<bool> matches(std::string_view module) const;
  // The text of the group named "idx", if the pattern matches and has it.
  Result<std::optional<std::string>> index_in(std::string_view module) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

}  // namespace skein
