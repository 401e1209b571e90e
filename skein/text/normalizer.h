// What a tokenizer does to a text before it looks for tokens: the "normalizer" of tokenizer.json.
//
// Thread-safety: const after loading, may be shared.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/json.h"

namespace skein {

class NormalizerStep {
 public:
  virtual ~NormalizerStep() = default;
  // text: well-formed UTF-8, not empty; so is the result, which may be empty.
  virtual std::string apply(std::string_view text) const = 0;
};

// Steps one after the other; none: the text stays as it is.
class Normalizer {
 public:
  // json: null, or an object of type NFC, NFD, NFKC, NFKD, Prepend, Replace, Strip, Precompiled or Sequence.
  static Result<Normalizer> parse(const Json& json, const std::string& where);
  // The canonical composition alone.
  static Normalizer nfc();

  void add(std::shared_ptr<const NormalizerStep> step) { steps_.push_back(std::move(step)); }
  bool empty() const { return steps_.empty(); }
  std::string apply(std::string_view text) const;

 private:
  std::vector<std::shared_ptr<const NormalizerStep>> steps_;
};

}  // namespace skein
