#include "skein/text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>

#include "skein/base/concat.h"
#include "skein/text/base64.h"
#include "skein/text/charsmap.h"
#include "skein/text/regex.h"
#include "skein/text/utf8.h"

namespace skein {
namespace {

// NFC, NFD, NFKC, NFKD (UAX 15).
class UnicodeForm : public NormalizerStep {
 public:
  explicit UnicodeForm(int options) : options_(options) {}
  std::string apply(std::string_view text) const override {
    const bool ascii = std::all_of(text.begin(), text.end(), [](char c) { return static_cast<signed char>(c) >= 0; });
    if (ascii) return std::string(text);
    utf8proc_uint8_t* mapped = nullptr;
    const auto length =
        utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                     &mapped, static_cast<utf8proc_option_t>(options_));
    SKEIN_CHECK(length >= 0);  // fails on malformed text and without memory only
    std::string out(reinterpret_cast<const char*>(mapped), static_cast<std::size_t>(length));
    std::free(mapped);  // NOLINT: utf8proc allocates with malloc
    return out;
  }

 private:
  int options_;
};

class Prepend : public NormalizerStep {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  std::string apply(std::string_view text) const override { return concat(prefix_, text); }

 private:
  std::string prefix_;
};

class Replace : public NormalizerStep {
 public:
  Replace(Regex pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}
  std::string apply(std::string_view text) const override {
    std::string out;
    std::size_t done = 0;
    Regex::Match match{};
    for (std::size_t from = 0; from <= text.size() && pattern_.find(text, from, match);) {
      out += text.substr(done, match.begin - done);
      out += content_;
      done = match.end;
      from = match.end;
      // An empty match: the next search starts one character on, or it would find the same again.
      if (match.end == match.begin) from += from < text.size() ? utf8_length(text.substr(from)) : 1;
    }
    out += text.substr(done);
    return out;
  }

 private:
  Regex pattern_;
  std::string content_;
};

// The common case of Replace, without a regular expression.
class ReplaceText : public NormalizerStep {
 public:
  ReplaceText(std::string from, std::string to) : from_(std::move(from)), to_(std::move(to)) {}
  std::string apply(std::string_view text) const override {
    std::string out;
    out.reserve(text.size() + text.size() / 4);
    for (;;) {
      const std::size_t at = text.find(from_);
      out += text.substr(0, at);
      if (at == std::string_view::npos) return out;
      out += to_;
      text.remove_prefix(at + from_.size());
    }
  }

 private:
  std::string from_, to_;
};

class PrecompiledMap : public NormalizerStep {
 public:
  explicit PrecompiledMap(Charsmap map) : map_(std::move(map)) {}
  std::string apply(std::string_view text) const override { return map_.apply(text); }

 private:
  Charsmap map_;
};

using Step = std::shared_ptr<const NormalizerStep>;

Result<Step> parse_replace(const Json& json, const std::string& where) {
  SKEIN_ASSIGN(std::string content, json_string(json, "content", std::nullopt, where));
  const Json pattern = json.value("pattern", Json::object());
  if (pattern.contains("String")) {
    SKEIN_ASSIGN(std::string from, json_string(pattern, "String", std::nullopt, where));
    if (from.empty()) return Error{concat(where, ": Replace has an empty pattern")};
    return Step(std::make_shared<ReplaceText>(std::move(from), std::move(content)));
  }
  SKEIN_ASSIGN(const std::string expression, json_string(pattern, "Regex", std::nullopt, where));
  SKEIN_ASSIGN(Regex regex, Regex::compile(expression, where));
  return Step(std::make_shared<Replace>(std::move(regex), std::move(content)));
}

Result<Step> parse_strip(const Json& json, const std::string& where) {
  SKEIN_ASSIGN(const bool left, json_bool(json, "strip_left", true, where));
  SKEIN_ASSIGN(const bool right, json_bool(json, "strip_right", true, where));
  const std::string pattern = left && right ? "\\A\\s+|\\s+\\z" : left ? "\\A\\s+" : right ? "\\s+\\z" : "\\A(?!)";
  SKEIN_ASSIGN(Regex regex, Regex::compile(pattern, where));
  return Step(std::make_shared<Replace>(std::move(regex), ""));
}

Result<Step> parse_precompiled(const Json& json, const std::string& where) {
  SKEIN_ASSIGN(const std::string text, json_string(json, "precompiled_charsmap", std::nullopt, where));
  const auto bytes = decode_base64(text);
  if (!bytes) return Error{concat(where, ": the precompiled_charsmap is not base64; the file is damaged")};
  SKEIN_ASSIGN(Charsmap map, Charsmap::parse(*bytes, where));
  return Step(std::make_shared<PrecompiledMap>(std::move(map)));
}

Result<Step> parse_step(const std::string& type, const Json& json, const std::string& where) {
  constexpr int kBase = UTF8PROC_STABLE;
  if (type == "NFC") return Step(std::make_shared<UnicodeForm>(kBase | UTF8PROC_COMPOSE));
  if (type == "NFD") return Step(std::make_shared<UnicodeForm>(kBase | UTF8PROC_DECOMPOSE));
  if (type == "NFKC") return Step(std::make_shared<UnicodeForm>(kBase | UTF8PROC_COMPOSE | UTF8PROC_COMPAT));
  if (type == "NFKD") return Step(std::make_shared<UnicodeForm>(kBase | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT));
  if (type == "Replace") return parse_replace(json, where);
  if (type == "Strip") return parse_strip(json, where);
  if (type == "Precompiled") return parse_precompiled(json, where);
  if (type == "Prepend") {
    SKEIN_ASSIGN(std::string prefix, json_string(json, "prepend", std::nullopt, where));
    return Step(std::make_shared<Prepend>(std::move(prefix)));
  }
  return Error{
      concat(where, ": the normalizer \"", printable(type),
             "\" is not one Skein has (NFC, NFD, NFKC, NFKD, Prepend, Replace, Strip, Precompiled, Sequence)")};
}

Status parse_into(const Json& json, const std::string& where, Normalizer& normalizer) {
  if (json.is_null()) return {};
  SKEIN_ASSIGN(const std::string type, json_string(json, "type", std::nullopt, where));
  if (type != "Sequence") {
    SKEIN_ASSIGN(Step step, parse_step(type, json, where));
    normalizer.add(std::move(step));
    return {};
  }
  for (const Json& inner : json.value("normalizers", Json::array())) SKEIN_TRY(parse_into(inner, where, normalizer));
  return {};
}

}  // namespace

Result<Normalizer> Normalizer::parse(const Json& json, const std::string& where) {
  Normalizer normalizer;
  SKEIN_TRY(parse_into(json, where, normalizer));
  return normalizer;
}

Normalizer Normalizer::nfc() {
  Normalizer normalizer;
  normalizer.add(std::make_shared<UnicodeForm>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  return normalizer;
}

std::string Normalizer::apply(std::string_view text) const {
  std::string normal(text);
  for (const auto& step : steps_) {
    if (normal.empty()) break;
    normal = step->apply(normal);
  }
  return normal;
}

}  // namespace skein
