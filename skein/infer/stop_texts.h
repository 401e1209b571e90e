// Finds the end of a text that arrives in pieces, at the first of some stop texts.
#pragma once

#include <string>
#include <vector>

namespace skein {

class StopTexts {
 public:
  explicit StopTexts(std::vector<std::string> stops);  // empty ones are ignored

  // The part of the text so far that is certain to stay and was not given before: what might begin a stop text is held
  // back. Once a stop text is complete, nothing more comes.
  std::string push(const std::string& piece);
  // What was held back, when no more pieces come.
  std::string finish();
  bool stopped() const { return stopped_; }
  const std::string& matched() const { return matched_; }  // the stop text that was found; empty: none

 private:
  std::vector<std::string> stops_;
  std::string held_, matched_;
  bool stopped_ = false;
};

}  // namespace skein
