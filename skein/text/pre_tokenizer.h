// How a tokenizer cuts a text into words, none of whose tokens reaches into another: the "pre_tokenizer" of
// tokenizer.json, or the cuts that a GGUF's pre-tokenizer name stands for.
//
// Thread-safety: const after loading, may be shared.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/json.h"
#include "skein/text/regex.h"
#include "skein/text/split_text.h"

namespace skein {

// What becomes of the matches of a Split (names as in tokenizer.json).
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

class PreTokenizerStep {
 public:
  virtual ~PreTokenizerStep() = default;
  virtual void apply(SplitText& split) const = 0;
};

class PreTokenizer {
 public:
  // json: null, or an object of type Split, ByteLevel, Digits, Metaspace, WhitespaceSplit, Whitespace or Sequence.
  static Result<PreTokenizer> parse(const Json& json, const std::string& where);
  // Each pattern in turn cuts the pieces left by the one before; matches and the text between them become pieces.
  static Result<PreTokenizer> isolating(const std::vector<std::string>& patterns, const std::string& where);

  // text: well-formed UTF-8. split.text may afterwards be another text (spaces spelled "▁", a space put before).
  void apply(SplitText& split) const {
    for (const auto& step : steps_) step->apply(split);
  }
  // The pieces are spelled in GPT-2's byte alphabet afterwards. (Skein keeps plain bytes; the model spells them.)
  bool byte_level() const { return byte_level_; }
  bool empty() const { return steps_.empty(); }
  void add(std::shared_ptr<const PreTokenizerStep> step) {
    if (step != nullptr) steps_.push_back(std::move(step));
  }

 private:
  static Status parse_into(const Json& json, const std::string& where, PreTokenizer& pre_tokenizer);
  static Status parse_step(const std::string& type, const Json& json, const std::string& where,
                           PreTokenizer& pre_tokenizer);

  std::vector<std::shared_ptr<const PreTokenizerStep>> steps_;
  bool byte_level_ = false;
};

// GPT-2's cut (github.com/openai/gpt-2, src/encoder.py).
extern const char* const kGpt2Pattern;

}  // namespace skein
