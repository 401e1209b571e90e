#include "skein/text/pre_tokenizer.h"

#include "skein/base/concat.h"
#include "skein/text/utf8.h"

namespace skein {

const char* const kGpt2Pattern = R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

using Span = SplitText::Span;

// Puts pieces together as the behaviour says. A piece is a match or the text between two.
class PieceCollector {
 public:
  PieceCollector(SplitBehavior behavior, std::vector<Span>& out) : behavior_(behavior), out_(out) {}

  void start_span() { first_ = out_.size(); }  // pieces of different spans never join
  void add(std::size_t begin, std::size_t end, bool is_match) {
    if (begin == end) return;
    const bool has_previous = out_.size() > first_;
    bool join = false;
    switch (behavior_) {
      case SplitBehavior::kRemoved:
        if (is_match) return;
        break;
      case SplitBehavior::kIsolated:
        break;
      case SplitBehavior::kMergedWithPrevious:
        join = has_previous && is_match && !previous_is_match_;
        break;
      case SplitBehavior::kMergedWithNext:
        join = has_previous && !is_match && previous_is_match_;
        break;
      case SplitBehavior::kContiguous:
        join = has_previous && is_match == previous_is_match_;
        break;
    }
    if (join) {
      out_.back().end = end;
    } else {
      out_.push_back({begin, end});
    }
    previous_is_match_ = is_match;
  }

 private:
  SplitBehavior behavior_;
  std::vector<Span>& out_;
  std::size_t first_ = 0;
  bool previous_is_match_ = false;
};

class Split : public PreTokenizerStep {
 public:
  Split(Regex regex, SplitBehavior behavior, bool invert)
      : regex_(std::move(regex)), behavior_(behavior), invert_(invert) {}

  void apply(SplitText& split) const override {
    std::vector<Span> out;
    out.reserve(split.spans.size() + split.text.size() / 4);
    PieceCollector collector(behavior_, out);
    for (const Span& span : split.spans) {
      collector.start_span();
      // Patterns look around: they must see this piece alone.
      const std::string_view piece = split.piece(span);
      std::size_t done = 0;
      Regex::Match match{};
      for (std::size_t from = 0; from < piece.size() && regex_.find(piece, from, match);) {
        collector.add(span.begin + done, span.begin + match.begin, invert_);
        collector.add(span.begin + match.begin, span.begin + match.end, !invert_);
        done = match.end;
        from = match.end;
        if (match.begin == match.end) from += from < piece.size() ? utf8_length(piece.substr(from)) : 1;
      }
      collector.add(span.begin + done, span.end, invert_);
    }
    split.spans = std::move(out);
  }

 private:
  Regex regex_;
  SplitBehavior behavior_;
  bool invert_;
};

// Puts a space before each piece that has none (ByteLevel's add_prefix_space).
class PrefixSpace : public PreTokenizerStep {
 public:
  void apply(SplitText& split) const override {
    std::string text;
    text.reserve(split.text.size() + split.spans.size());
    for (Span& span : split.spans) {
      const std::string_view piece = split.piece(span);
      const std::size_t begin = text.size();
      if (!piece.starts_with(' ')) text += ' ';
      text += piece;
      span = {begin, text.size()};
    }
    split.set_text(std::move(text));
  }
};

// SentencePiece's way: spaces become "▁", a piece that starts without one gets one, and each "▁" starts a word.
class Metaspace : public PreTokenizerStep {
 public:
  enum class Prepend { kAlways, kFirst, kNever };
  Metaspace(std::string replacement, Prepend prepend, bool cut)
      : replacement_(std::move(replacement)), prepend_(prepend), cut_(cut) {}

  void apply(SplitText& split) const override {
    std::string text;
    text.reserve(split.text.size() * 5 / 4);
    std::vector<Span> out;
    for (const Span& span : split.spans) {
      const bool first = split.at_start && span.begin == 0;
      const std::size_t begin = text.size();
      add_piece(split.piece(span), first, text);
      if (cut_) {
        cut(text, begin, out);
      } else {
        out.push_back({begin, text.size()});
      }
    }
    split.spans = std::move(out);
    split.set_text(std::move(text));
  }

 private:
  void add_piece(std::string_view piece, bool first, std::string& text) const {
    const bool wanted = prepend_ == Prepend::kAlways || (prepend_ == Prepend::kFirst && first);
    if (wanted && !piece.starts_with(' ') && !piece.starts_with(replacement_)) text += replacement_;
    for (const char c : piece) {
      if (c == ' ') {
        text += replacement_;
      } else {
        text += c;
      }
    }
  }

  void cut(const std::string& text, std::size_t begin, std::vector<Span>& out) const {
    while (begin < text.size()) {
      std::size_t next = text.find(replacement_, begin + 1);
      if (next == std::string::npos) next = text.size();
      out.push_back({begin, next});
      begin = next;
    }
  }

  std::string replacement_;
  Prepend prepend_;
  bool cut_;
};

using Step = std::shared_ptr<const PreTokenizerStep>;

Result<Step> make_split(const std::string& pattern, SplitBehavior behavior, bool invert, const std::string& where) {
  SKEIN_ASSIGN(Regex regex, Regex::compile(pattern, where));
  return Step(std::make_shared<Split>(std::move(regex), behavior, invert));
}

Result<SplitBehavior> parse_behavior(const std::string& name, const std::string& where) {
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return Error{concat(where, ": \"", printable(name), "\" is not a behavior of Split")};
}

Result<Step> parse_split(const Json& json, const std::string& where) {
  SKEIN_ASSIGN(const std::string name, json_string(json, "behavior", std::nullopt, where));
  SKEIN_ASSIGN(const SplitBehavior behavior, parse_behavior(name, where));
  SKEIN_ASSIGN(const bool invert, json_bool(json, "invert", false, where));
  const Json pattern = json.value("pattern", Json::object());
  if (pattern.contains("String")) {
    SKEIN_ASSIGN(const std::string text, json_string(pattern, "String", std::nullopt, where));
    return make_split(Regex::quote(text), behavior, invert, where);
  }
  SKEIN_ASSIGN(const std::string expression, json_string(pattern, "Regex", std::nullopt, where));
  return make_split(expression, behavior, invert, where);
}

Result<Step> parse_metaspace(const Json& json, const std::string& where) {
  SKEIN_ASSIGN(std::string replacement, json_string(json, "replacement", "▁", where));
  if (replacement.empty()) return Error{concat(where, ": Metaspace has an empty replacement")};
  SKEIN_ASSIGN(const bool add_prefix_space, json_bool(json, "add_prefix_space", true, where));  // before 0.15
  SKEIN_ASSIGN(const std::string scheme,
               json_string(json, "prepend_scheme", add_prefix_space ? "always" : "never", where));
  SKEIN_ASSIGN(const bool cut, json_bool(json, "split", true, where));
  auto prepend = Metaspace::Prepend::kAlways;
  if (scheme == "first") {
    prepend = Metaspace::Prepend::kFirst;
  } else if (scheme == "never") {
    prepend = Metaspace::Prepend::kNever;
  } else if (scheme != "always") {
    return Error{concat(where, ": \"", printable(scheme), "\" is not a prepend_scheme of Metaspace")};
  }
  return Step(std::make_shared<Metaspace>(std::move(replacement), prepend, cut));
}

}  // namespace

Status PreTokenizer::parse_into(const Json& json, const std::string& where, PreTokenizer& pre_tokenizer) {
  if (json.is_null()) return {};
  SKEIN_ASSIGN(const std::string type, json_string(json, "type", std::nullopt, where));
  if (type == "Sequence") {
    for (const Json& inner : json.value("pretokenizers", Json::array())) {
      SKEIN_TRY(parse_into(inner, where, pre_tokenizer));
    }
    return {};
  }
  return parse_step(type, json, where, pre_tokenizer);
}

Status PreTokenizer::parse_step(const std::string& type, const Json& json, const std::string& where,
                                PreTokenizer& pre_tokenizer) {
  if (pre_tokenizer.byte_level_) {
    return Error{concat(where, ": the pre-tokenizer \"", printable(type),
                        "\" stands after ByteLevel, where it would cut spelled bytes; Skein wants ByteLevel last")};
  }
  auto& steps = pre_tokenizer.steps_;
  const auto add = [&](Result<Step> step) -> Status {
    if (!step.ok()) return step.error();
    steps.push_back(std::move(step).value());
    return {};
  };
  if (type == "Split") return add(parse_split(json, where));
  if (type == "Metaspace") return add(parse_metaspace(json, where));
  if (type == "WhitespaceSplit") return add(make_split("\\s+", SplitBehavior::kRemoved, false, where));
  if (type == "Whitespace") return add(make_split("\\w+|[^\\w\\s]+", SplitBehavior::kRemoved, true, where));
  if (type == "Digits") {
    SKEIN_ASSIGN(const bool individual, json_bool(json, "individual_digits", false, where));
    return add(make_split("\\p{N}", individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous, false, where));
  }
  if (type == "ByteLevel") {
    SKEIN_ASSIGN(const bool add_prefix_space, json_bool(json, "add_prefix_space", true, where));
    SKEIN_ASSIGN(const bool use_regex, json_bool(json, "use_regex", true, where));
    pre_tokenizer.byte_level_ = true;
    if (add_prefix_space) steps.push_back(std::make_shared<PrefixSpace>());
    if (use_regex) return add(make_split(kGpt2Pattern, SplitBehavior::kIsolated, false, where));
    return {};
  }
  return Error{
      concat(where, ": the pre-tokenizer \"", printable(type),
             "\" is not one Skein has (Split, ByteLevel, Digits, Metaspace, WhitespaceSplit, Whitespace, Sequence)")};
}

Result<PreTokenizer> PreTokenizer::parse(const Json& json, const std::string& where) {
  PreTokenizer pre_tokenizer;
  SKEIN_TRY(parse_into(json, where, pre_tokenizer));
  return pre_tokenizer;
}

Result<PreTokenizer> PreTokenizer::isolating(const std::vector<std::string>& patterns, const std::string& where) {
  PreTokenizer pre_tokenizer;
  pre_tokenizer.byte_level_ = true;
  for (const std::string& pattern : patterns) {
    SKEIN_ASSIGN(Step step, make_split(pattern, SplitBehavior::kIsolated, false, where));
    pre_tokenizer.steps_.push_back(std::move(step));
  }
  return pre_tokenizer;
}

}  // namespace skein
