// A text cut into pieces: what pre-tokenizer steps pass on.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace skein {

struct SplitText {
  struct Span {
    std::size_t begin, end;  // bytes of `text`; begin < end
  };
  std::string_view text;    // borrowed from the caller, or `changed`
  std::string changed;      // owns the text once a step has changed it
  std::vector<Span> spans;  // in order, without gaps that matter
  bool at_start = true;     // the text is the very beginning of what is encoded

  void reset(std::string_view whole, bool starts) {
    text = whole;
    at_start = starts;
    spans.clear();
    if (!whole.empty()) spans.push_back({0, whole.size()});
  }
  std::string_view piece(const Span& span) const { return text.substr(span.begin, span.end - span.begin); }
  void set_text(std::string&& replaced) {
    changed = std::move(replaced);
    text = changed;
  }
};

}  // namespace skein
