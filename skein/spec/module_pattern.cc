#include "skein/spec/module_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "skein/base/concat.h"

namespace skein {
namespace {

constexpr std::size_t kMaxPatternBytes = 16384;  // PEFT's longest spell out every module of a model

std::string pcre2_message(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

}  // namespace

struct ModulePattern::Code {
  std::string pattern;
  std::string where;
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;

  ~Code() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }

  // Group offsets in `data`; false: no match.
  Result<bool> run(std::string_view module, pcre2_match_data* data) const {
    const int found =
        pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(module.data()), module.size(), 0, 0, data, context);
    if (found >= 0) return true;
    if (found == PCRE2_ERROR_NOMATCH) return false;
    return Error{concat(where, ": the regular expression \"", printable(pattern), "\" gave up on module ",
                        printable(module), " (", pcre2_message(found),
                        "); expected one that decides within a bounded number of steps")};
  }
};

Result<ModulePattern> ModulePattern::compile(const std::string& pattern, Anchor anchor, std::uint32_t max_steps,
                                             const std::string& where) {
  if (pattern.size() > kMaxPatternBytes) {
    return Error{concat(where, ": a regular expression of ", pattern.size(), " bytes; at most ", kMaxPatternBytes,
                        " are accepted")};
  }
  auto code = std::make_shared<Code>();
  code->pattern = pattern;
  code->where = where;
  std::uint32_t options = PCRE2_NEVER_BACKSLASH_C | PCRE2_ANCHORED;
  if (anchor == Anchor::kBoth) options |= PCRE2_ENDANCHORED;
  int error = 0;
  std::size_t offset = 0;
  code->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options, &error, &offset, nullptr);
  if (code->code == nullptr) {
    return Error{concat(where, ": the regular expression \"", printable(pattern), "\" is wrong at byte ", offset, ": ",
                        pcre2_message(error))};
  }
  code->context = pcre2_match_context_create(nullptr);
  SKEIN_CHECK(code->context != nullptr);
  pcre2_set_match_limit(code->context, max_steps);
  pcre2_set_depth_limit(code->context, max_steps);
  pcre2_set_heap_limit(code->context, 4096);  // KiB
  ModulePattern result;
  result.code_ = std::move(code);
  return result;
}

Result<bool> ModulePattern::matches(std::string_view module) const {
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create_from_pattern(code_->code, nullptr), pcre2_match_data_free);
  return code_->run(module, data.get());
}

Result<std::optional<std::string>> ModulePattern::index_in(std::string_view module) const {
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create_from_pattern(code_->code, nullptr), pcre2_match_data_free);
  SKEIN_ASSIGN(const bool found, code_->run(module, data.get()));
  const int group = pcre2_substring_number_from_name(code_->code, reinterpret_cast<PCRE2_SPTR>("idx"));
  if (!found || group < 0) return std::optional<std::string>();
  const std::size_t* bounds = pcre2_get_ovector_pointer(data.get());
  if (bounds[2 * group] == PCRE2_UNSET) return std::optional<std::string>();
  return std::optional<std::string>(module.substr(bounds[2 * group], bounds[2 * group + 1] - bounds[2 * group]));
}

}  // namespace skein
