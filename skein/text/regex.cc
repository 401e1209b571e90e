#include "skein/text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cstdint>

#include "skein/base/concat.h"

namespace skein {

struct Regex::Code {
  pcre2_code* code = nullptr;
  ~Code() { pcre2_code_free(code); }
};

namespace {

constexpr std::size_t kMaxPattern = 64 << 10;
constexpr std::string_view kWord = "\\p{L}\\p{M}\\p{Nd}\\p{Pc}";

// What one thread needs to match: a place for the result, and the limits with a stack for compiled patterns.
struct MatchState {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(64 << 10, 8 << 20, nullptr);

  MatchState() {
    pcre2_jit_stack_assign(context, nullptr, stack);
    pcre2_set_match_limit(context, Regex::kMatchLimit);
  }
  ~MatchState() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
};

std::string message_of(int code) {
  PCRE2_UCHAR text[160];
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

// Oniguruma's classes in PCRE2's words (see the header). A \W inside brackets has no such word and is refused.
Result<std::string> to_pcre2(const std::string& pattern, const std::string& where) {
  std::string out;
  bool in_class = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char escaped = pattern[++i];
      if (escaped == 's') {
        out += "\\p{White_Space}";
      } else if (escaped == 'S') {
        out += "\\P{White_Space}";
      } else if (escaped == 'w') {
        out += in_class ? std::string(kWord) : concat("[", kWord, "]");
      } else if (escaped == 'W' && !in_class) {
        out += concat("[^", kWord, "]");
      } else if (escaped == 'h' || escaped == 'H' || escaped == 'W') {
        return Error{concat(where, ": the pattern \"", printable(pattern), "\" uses \\", std::string(1, escaped),
                            in_class ? " in brackets" : "", ", which Skein does not translate")};
      } else {
        out += {c, escaped};
      }
      continue;
    }
    const bool set_operation =
        in_class && ((c == '[' && pattern.compare(i, 2, "[:") != 0) || pattern.compare(i, 2, "&&") == 0);
    if (set_operation) {
      return Error{concat(where, ": the pattern \"", printable(pattern),
                          "\" nests or intersects bracketed sets, which Skein does not translate")};
    }
    if (c == '[') in_class = true;
    if (c == ']' && !(out.ends_with("[") || out.ends_with("[^"))) in_class = false;
    out += c;
  }
  return out;
}

}  // namespace

Result<Regex> Regex::compile(const std::string& pattern, const std::string& where) {
  if (pattern.size() > kMaxPattern) {
    return Error{concat(where, ": a pattern has ", pattern.size(), " bytes; at most ", kMaxPattern, " are allowed")};
  }
  SKEIN_ASSIGN(const std::string translated, to_pcre2(pattern, where));
  int code = 0;
  PCRE2_SIZE offset = 0;
  auto compiled = std::make_shared<Code>();
  compiled->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                 PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &offset, nullptr);
  if (compiled->code == nullptr) {
    return Error{concat(where, ": the pattern \"", printable(pattern), "\" cannot be compiled: ", message_of(code),
                        " (at byte ", offset, ")")};
  }
  pcre2_jit_compile(compiled->code, PCRE2_JIT_COMPLETE);  // without it the interpreter runs: slower, same matches
  Regex regex;
  regex.code_ = std::move(compiled);
  regex.pattern_ = pattern;
  return regex;
}

std::string Regex::quote(std::string_view text) {
  std::string pattern;
  for (const char c : text) {
    if (std::string_view("\\^$.[]|()?*+{}-#").find(c) != std::string_view::npos) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

bool Regex::find(std::string_view text, std::size_t from, Match& match) const {
  thread_local MatchState state;
  const int found = pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                                PCRE2_NO_UTF_CHECK, state.data, state.context);
  if (found == PCRE2_ERROR_NOMATCH) return false;
  if (found < 0) {
    throw Failure(Error{concat("the tokenizer's pattern \"", printable(pattern_), "\" gave up on a text of ",
                               text.size(), " bytes: ", message_of(found))});
  }
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(state.data);
  match = Match{ends[0], ends[1]};
  return true;
}

}  // namespace skein
