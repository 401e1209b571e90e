#include "skein/cli/bench_bars.h"

#include "skein/base/concat.h"
#include "skein/cli/text_table.h"

namespace skein {

std::string BenchBars::Bar::text() const { return concat(is_least ? ">= " : "<= ", bar); }

std::string BenchBars::render(bool styled) const {
  using enum TextTable::Align;
  TextTable table({{"ratio", kLeft}, {"value"}, {"bar"}, {"met", kLeft}});
  for (const Bar& bar : bars_) table.add_row({bar.what, fixed(bar.value, 2), bar.text(), bar.is_met() ? "yes" : "no"});
  return table.render(styled);
}

Json BenchBars::to_json() const {
  Json json = Json::array();
  for (const Bar& bar : bars_) {
    json.push_back({{"what", bar.what}, {"value", bar.value}, {"bar", bar.text()}, {"met", bar.is_met()}});
  }
  return json;
}

}  // namespace skein
