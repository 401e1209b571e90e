#include "skein/infer/stop_texts.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace skein {

StopTexts::StopTexts(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
}

std::string StopTexts::push(const std::string& piece) {
  if (stopped_) return "";
  held_ += piece;
  std::size_t first = std::string::npos;
  for (const std::string& stop : stops_) {
    const std::size_t found = held_.find(stop);
    if (found >= first) continue;
    first = found;
    matched_ = stop;
  }
  if (first != std::string::npos) {
    stopped_ = true;
    held_.resize(first);
    return std::exchange(held_, "");
  }
  // Held back: the longest end of the text that begins a stop text.
  std::size_t held = 0;
  for (const std::string& stop : stops_) {
    for (std::size_t length = std::min(stop.size() - 1, held_.size()); length > held; --length) {
      if (std::string_view(held_).ends_with(std::string_view(stop).substr(0, length))) held = length;
    }
  }
  std::string certain = held_.substr(0, held_.size() - held);
  held_.erase(0, held_.size() - held);
  return certain;
}

std::string StopTexts::finish() {
  stopped_ = true;
  return std::exchange(held_, "");
}

}  // namespace skein
