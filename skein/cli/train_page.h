// The page of a training run: loss, learning rate, gradient norm, and of mixtures the experts' load and the routers'
// entropy by layer. One self-contained file, readable in light and dark.
#pragma once

#include <string>

namespace skein {

// name: of what was trained, for the title. log: the lines of log.jsonl.
std::string train_page(const std::string& name, const std::string& log);

}  // namespace skein
