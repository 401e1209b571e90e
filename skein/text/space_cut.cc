#include "skein/text/space_cut.h"

#include <string_view>
#include <vector>

namespace skein {
namespace {

constexpr std::string_view kSpace = "▁";

class SpaceCut : public PreTokenizerStep {
 public:
  explicit SpaceCut(const Vocabulary& vocabulary) : joins_(256, false) {
    for (TokenId id = 0; id < vocabulary.size(); ++id) {
      const std::string_view token = vocabulary[id];
      for (std::size_t at = token.find(kSpace, 1); at != std::string_view::npos; at = token.find(kSpace, at + 1)) {
        joins_[last_byte(token.substr(0, at))] = true;
      }
    }
  }

  void apply(SplitText& split) const override {
    std::vector<SplitText::Span> out;
    for (const auto& span : split.spans) {
      std::size_t begin = span.begin;
      for (std::size_t at = split.text.find(kSpace, begin + 1); at < span.end; at = split.text.find(kSpace, at + 1)) {
        if (joins_[last_byte(split.text.substr(0, at))]) continue;
        out.push_back({begin, at});
        begin = at;
      }
      out.push_back({begin, span.end});
    }
    split.spans = std::move(out);
  }

 private:
  static unsigned char last_byte(std::string_view text) { return static_cast<unsigned char>(text.back()); }

  // By the last byte of x: a few more x than need be stay joined, and the table is small.
  std::vector<bool> joins_;
};

}  // namespace

std::shared_ptr<const PreTokenizerStep> make_space_cut(const Vocabulary& vocabulary) {
  if (!vocabulary.find(kSpace)) return nullptr;
  return std::make_shared<SpaceCut>(vocabulary);
}

}  // namespace skein
