// The regular expressions of tokenizer files (Oniguruma's syntax, Unicode classes), matched by PCRE2.
//
// Oniguruma's \s, \w and their negations differ from PCRE2's in a few characters; a pattern is rewritten so that \s is
// White_Space and \w is letters, marks, decimal digits and connectors, as there.
//
// Thread-safety: const after compile(), may be shared.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "skein/base/result.h"

namespace skein {

class Regex {
 public:
  // where: for messages.
  static Result<Regex> compile(const std::string& pattern, const std::string& where);
  // A pattern that matches exactly this text.
  static std::string quote(std::string_view text);

  struct Match {
    std::size_t begin, end;
  };
  // The first match at or after byte `from`; text: well-formed UTF-8. Throws Failure when the pattern needs more steps
  // than kMatchLimit on this text: a hostile tokenizer file must not hang the program.
  bool find(std::string_view text, std::size_t from, Match& match) const;

  const std::string& pattern() const { return pattern_; }  // as given

  static constexpr unsigned kMatchLimit = 20'000'000;

 private:
  struct Code;  // pcre2_code
  std::shared_ptr<const Code> code_;
  std::string pattern_;
};

}  // namespace skein
