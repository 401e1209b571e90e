#include "skein/cli/trace.h"

#include <algorithm>
#include <numeric>

#include "skein/base/concat.h"
#include "skein/cli/text_table.h"

namespace skein {
namespace {

// Expert indices by falling share.
std::vector<std::size_t> by_share(const std::vector<double>& shares) {
  std::vector<std::size_t> order(shares.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return shares[a] > shares[b]; });
  return order;
}

std::string percent(double share) { return fixed(100 * share, 0) + " %"; }

// Control characters made visible, so that a token stays on its line.
std::string visible(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\n') {
      out += "↵";
    } else if (c == '\t') {
      out += "→";
    } else if (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f) {
      out += c;
    }
  }
  return out;
}

std::string token_table(const Trace& trace, bool styled) {
  using enum TextTable::Align;
  TextTable table({{"pos"}, {"token", kLeft}, {"first", kLeft}, {"share"}, {"second", kLeft}, {"share"}});
  const auto shares = token_shares(trace);
  for (std::size_t t = 0; t < trace.tokens.size(); ++t) {
    const TraceToken& token = trace.tokens[t];
    const auto order = by_share(shares[t]);
    const auto name = [&](std::size_t rank) {
      return rank < order.size() ? shortened(printable(trace.experts[order[rank]]), 24) : "";
    };
    const auto share = [&](std::size_t rank) { return rank < order.size() ? percent(shares[t][order[rank]]) : ""; };
    table.add_row({std::to_string(token.position),
                   {shortened(visible(token.text), 20), token.in_answer},
                   name(0),
                   share(0),
                   name(1),
                   share(1)});
  }
  return table.render(styled);
}

// Rows: all modules, then each kind. Columns: the experts with most weight; the others share the last.
std::string share_table(const Trace& trace, bool styled) {
  constexpr std::size_t kMostColumns = 8;
  using enum TextTable::Align;
  const auto order = by_share(group_shares(trace, ""));
  const std::size_t num_named = order.size() <= kMostColumns ? order.size() : kMostColumns - 1;
  std::vector<TextTable::Column> columns = {{"modules", kLeft}};
  for (std::size_t rank = 0; rank < num_named; ++rank)
    columns.push_back({shortened(printable(trace.experts[order[rank]]), 12)});
  if (num_named < order.size()) columns.push_back({concat(order.size() - num_named, " others")});
  TextTable table(columns);
  const auto add_row = [&](const std::string& title, const std::string& group) {
    const auto shares = group_shares(trace, group);
    double named = 0;
    std::vector<TextTable::Cell> row = {title};
    for (std::size_t rank = 0; rank < num_named; ++rank) {
      row.push_back({percent(shares[order[rank]]), group.empty()});
      named += shares[order[rank]];
    }
    if (num_named < order.size()) row.push_back(percent(std::accumulate(shares.begin(), shares.end(), -named)));
    table.add_row(row);
  };
  add_row("all", "");
  for (const std::string& group : slot_groups(trace)) add_row(group, group);
  return table.render(styled);
}

}  // namespace

std::vector<std::vector<double>> token_shares(const Trace& trace) {
  std::vector<std::vector<double>> shares(trace.tokens.size(), std::vector<double>(trace.experts.size(), 0.0));
  for (std::size_t t = 0; t < trace.tokens.size(); ++t) {
    double num_slots = 0;
    for (std::size_t s = 0; s < trace.slots.size(); ++s) {
      const std::size_t at = trace.at(s, t);
      if (trace.top_k == 0 || trace.ids[at] < 0) continue;
      ++num_slots;
      for (int i = 0; i < trace.top_k; ++i) {
        if (trace.ids[at + i] >= 0) shares[t][trace.ids[at + i]] += trace.weights[at + i];
      }
    }
    for (double& share : shares[t]) share = num_slots > 0 ? share / num_slots : 0;
  }
  return shares;
}

std::vector<double> group_shares(const Trace& trace, const std::string& group) {
  std::vector<double> shares(trace.experts.size(), 0.0);
  double num_rows = 0;
  for (std::size_t s = 0; s < trace.slots.size(); ++s) {
    if (!group.empty() && slot_group(trace.slots[s]) != group) continue;
    for (std::size_t t = 0; t < trace.tokens.size(); ++t) {
      const std::size_t at = trace.at(s, t);
      if (trace.top_k == 0 || trace.ids[at] < 0) continue;
      ++num_rows;
      for (int i = 0; i < trace.top_k; ++i) {
        if (trace.ids[at + i] >= 0) shares[trace.ids[at + i]] += trace.weights[at + i];
      }
    }
  }
  for (double& share : shares) share = num_rows > 0 ? share / num_rows : 0;
  return shares;
}

std::string slot_group(const TraceSlot& slot) {
  if (slot.module.rfind("encoder.", 0) == 0) return "encoder " + slot.kind;
  if (slot.module.rfind("decoder.", 0) != 0) return slot.kind;
  return (slot.module.find("EncDecAttention") != std::string::npos ? "cross " : "decoder ") + slot.kind;
}

std::vector<std::string> slot_groups(const Trace& trace) {
  std::vector<std::string> groups;
  for (const TraceSlot& slot : trace.slots) {
    const std::string group = slot_group(slot);
    if (std::find(groups.begin(), groups.end(), group) == groups.end()) groups.push_back(group);
  }
  return groups;
}

std::vector<Json> trace_lines(const Trace& trace) {
  std::vector<Json> lines;
  for (std::size_t t = 0; t < trace.tokens.size(); ++t) {
    const TraceToken& token = trace.tokens[t];
    Json modules = Json::object();
    for (std::size_t s = 0; s < trace.slots.size(); ++s) {
      const std::size_t at = trace.at(s, t);
      Json chosen = Json::array();
      for (int i = 0; i < trace.top_k; ++i) {
        if (trace.ids[at + i] < 0 || trace.weights[at + i] == 0) continue;
        chosen.push_back({trace.experts[trace.ids[at + i]], trace.weights[at + i]});
      }
      if (!chosen.empty()) modules[trace.slots[s].module] = std::move(chosen);
    }
    lines.push_back({{"position", token.position},
                     {"id", token.id},
                     {"text", token.text},
                     {"part", token.in_source   ? "source"
                              : token.in_answer ? "answer"
                                                : "prompt"},
                     {"modules", std::move(modules)}});
  }
  return lines;
}

std::string trace_text(const Trace& trace, bool styled) {
  return concat(token_table(trace, styled), "\nShare of the routing weight over ", trace.slots.size(), " modules and ",
                trace.tokens.size(),
                " tokens (chance: ", percent(1.0 / static_cast<double>(std::max<std::size_t>(1, trace.experts.size()))),
                "), by kind of module\n", share_table(trace, styled));
}

}  // namespace skein
