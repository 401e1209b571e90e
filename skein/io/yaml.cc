#include "skein/io/yaml.h"

#include <yaml.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <set>

#include "skein/base/concat.h"

namespace skein {
namespace {

using Kind = YamlNode::Kind;

constexpr char kCoreTags[] = "tag:yaml.org,2002:";

struct Event {
  yaml_event_t event{};
  Event() = default;
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { yaml_event_delete(&event); }
  yaml_event_type_t type() const { return event.type; }
  int line() const { return static_cast<int>(event.start_mark.line) + 1; }
};

std::string text_of(const yaml_char_t* characters) {
  return characters == nullptr ? std::string() : std::string(reinterpret_cast<const char*>(characters));
}

std::size_t count_nodes(const YamlNode& node) {
  std::size_t count = 1;
  for (const auto& item : node.items) count += count_nodes(item);
  for (const auto& member : node.members) count += 1 + count_nodes(member.value);
  return count;
}

std::size_t depth_of(const YamlNode& node) {
  std::size_t deepest = 0;
  for (const auto& item : node.items) deepest = std::max(deepest, depth_of(item));
  for (const auto& member : node.members) deepest = std::max(deepest, depth_of(member.value));
  return deepest + 1;
}

// Descends along the events. The depth of the recursion is bounded by the limits.
class DocumentParser {
 public:
  DocumentParser(const std::string& text, const std::string& where, const YamlLimits& limits)
      : where_(where), limits_(limits) {
    ready_ = yaml_parser_initialize(&parser_) == 1;
    if (!ready_) return;
    yaml_parser_set_encoding(&parser_, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser_, reinterpret_cast<const unsigned char*>(text.data()), text.size());
  }
  ~DocumentParser() {
    if (ready_) yaml_parser_delete(&parser_);
  }
  DocumentParser(const DocumentParser&) = delete;
  DocumentParser& operator=(const DocumentParser&) = delete;

  Result<std::vector<YamlNode>> documents() {
    if (!ready_) return Error{concat("cannot read ", where_, ": out of memory")};
    std::vector<YamlNode> documents;
    for (;;) {
      Event event;
      SKEIN_TRY(next(event));
      if (event.type() == YAML_STREAM_END_EVENT) return documents;
      if (event.type() != YAML_DOCUMENT_START_EVENT) continue;  // the stream's start, a document's end
      anchors_.clear();
      Event root;
      SKEIN_TRY(next(root));
      SKEIN_ASSIGN(YamlNode node, node_of(root, 1));
      if (!node.is_null()) documents.push_back(std::move(node));
    }
  }

 private:
  Error fault(int line, const std::string& what) const { return Error{concat(yaml_place(where_, line), ": ", what)}; }

  Status next(Event& event) {
    if (yaml_parser_parse(&parser_, &event.event) == 1) return {};
    std::string problem = parser_.problem == nullptr ? "not YAML" : parser_.problem;
    if (parser_.context != nullptr) problem += concat(" (", parser_.context, ")");
    return fault(static_cast<int>(parser_.problem_mark.line) + 1, problem);
  }

  Status count(std::size_t nodes, int line) {
    num_nodes_ += nodes;
    if (num_nodes_ <= limits_.max_nodes) return {};
    return fault(line, concat("more than ", limits_.max_nodes, " values, aliases counted as what they stand for"));
  }

  Result<YamlNode> node_of(const Event& event, std::size_t depth) {
    const int line = event.line();
    if (depth > limits_.max_depth) return fault(line, concat("nested more than ", limits_.max_depth, " deep"));
    switch (event.type()) {
      case YAML_ALIAS_EVENT:
        return alias(event, depth);
      case YAML_SCALAR_EVENT:
        return scalar(event);
      case YAML_SEQUENCE_START_EVENT:
        return list(event, depth);
      case YAML_MAPPING_START_EVENT:
        return mapping(event, depth);
      default:
        return fault(line, "a value was expected");
    }
  }

  Result<YamlNode> alias(const Event& event, std::size_t depth) {
    const std::string name = text_of(event.event.data.alias.anchor);
    const auto found = anchors_.find(name);
    if (found == anchors_.end()) return fault(event.line(), concat("no anchor &", printable(name), " before this"));
    SKEIN_TRY(count(count_nodes(found->second), event.line()));
    if (depth + depth_of(found->second) > limits_.max_depth + 1) {
      return fault(event.line(), concat("nested more than ", limits_.max_depth, " deep"));
    }
    return found->second;
  }

  Status check_tag(const yaml_char_t* tag, int line) const {
    const std::string text = text_of(tag);
    if (text.empty() || text == "!") return {};
    for (const char* known : {"str", "int", "float", "bool", "null", "seq", "map"}) {
      if (text == concat(kCoreTags, known)) return {};
    }
    return fault(line, concat("the tag ", printable(text), " is not accepted; plain values were expected"));
  }

  Result<YamlNode> scalar(const Event& event) {
    const auto& data = event.event.data.scalar;
    SKEIN_TRY(check_tag(data.tag, event.line()));
    SKEIN_TRY(count(1, event.line()));
    YamlNode node;
    node.line = event.line();
    node.text.assign(reinterpret_cast<const char*>(data.value), data.length);
    node.is_quoted = data.style != YAML_PLAIN_SCALAR_STYLE || text_of(data.tag) == concat(kCoreTags, "str");
    const bool is_null = !node.is_quoted && (node.text.empty() || node.text == "~" || node.text == "null" ||
                                             node.text == "Null" || node.text == "NULL");
    node.kind = is_null ? Kind::kNull : Kind::kScalar;
    remember(data.anchor, node);
    return node;
  }

  Result<YamlNode> list(const Event& start, std::size_t depth) {
    const auto& data = start.event.data.sequence_start;
    SKEIN_TRY(check_tag(data.tag, start.line()));
    SKEIN_TRY(count(1, start.line()));
    YamlNode node;
    node.kind = Kind::kList;
    node.line = start.line();
    for (;;) {
      Event event;
      SKEIN_TRY(next(event));
      if (event.type() == YAML_SEQUENCE_END_EVENT) break;
      SKEIN_ASSIGN(YamlNode item, node_of(event, depth + 1));
      node.items.push_back(std::move(item));
    }
    remember(data.anchor, node);
    return node;
  }

  Result<YamlNode> mapping(const Event& start, std::size_t depth) {
    const auto& data = start.event.data.mapping_start;
    SKEIN_TRY(check_tag(data.tag, start.line()));
    SKEIN_TRY(count(1, start.line()));
    YamlNode node;
    node.kind = Kind::kMapping;
    node.line = start.line();
    std::set<std::string> keys;
    std::vector<YamlMember> merged;  // of "<<": behind the mapping's own
    for (;;) {
      Event event;
      SKEIN_TRY(next(event));
      if (event.type() == YAML_MAPPING_END_EVENT) break;
      SKEIN_ASSIGN(YamlNode key, node_of(event, depth + 1));
      if (!key.is_scalar())
        return fault(event.line(), concat("a key is ", yaml_description(key), "; a word was expected"));
      Event value_event;
      SKEIN_TRY(next(value_event));
      SKEIN_ASSIGN(YamlNode value, node_of(value_event, depth + 1));
      if (key.text == "<<" && !key.is_quoted) {
        SKEIN_TRY(collect_merged(value, merged));
        continue;
      }
      if (!keys.insert(key.text).second) {
        return fault(key.line, concat("the key \"", printable(key.text), "\" stands twice in one mapping"));
      }
      node.members.push_back({std::move(key.text), key.line, std::move(value)});
    }
    for (auto& member : merged) {
      if (keys.insert(member.key).second) node.members.push_back(std::move(member));
    }
    remember(data.anchor, node);
    return node;
  }

  // The value of "<<": a mapping, or a list of them of which earlier ones win.
  Status collect_merged(const YamlNode& value, std::vector<YamlMember>& merged) const {
    if (value.is_mapping()) {
      merged.insert(merged.end(), value.members.begin(), value.members.end());
      return {};
    }
    if (!value.is_list()) return fault(value.line, "the value of << is not a mapping");
    for (const auto& item : value.items) {
      if (!item.is_mapping()) return fault(item.line, "the value of << holds what is not a mapping");
      merged.insert(merged.end(), item.members.begin(), item.members.end());
    }
    return {};
  }

  void remember(const yaml_char_t* anchor, const YamlNode& node) {
    if (anchor != nullptr) anchors_[text_of(anchor)] = node;
  }

  const std::string& where_;
  const YamlLimits& limits_;
  yaml_parser_t parser_{};
  bool ready_ = false;
  std::size_t num_nodes_ = 0;
  std::map<std::string, YamlNode> anchors_;
};

// Without the underscores that YAML 1.1 allows, and without a leading plus, which from_chars refuses.
std::string digits_of(const YamlNode& node) {
  std::string digits = node.text;
  std::erase(digits, '_');
  if (digits.starts_with('+')) digits.erase(0, 1);
  return digits;
}

}  // namespace

const YamlNode* YamlNode::find(std::string_view key) const {
  const auto found =
      std::find_if(members.begin(), members.end(), [&](const auto& member) { return member.key == key; });
  return found == members.end() ? nullptr : &found->value;
}

Result<std::vector<YamlNode>> parse_yaml(const std::string& text, const std::string& where, const YamlLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return Error{
        concat(where, " has ", text.size(), " bytes; at most ", limits.max_bytes, " are read; is it the right file?")};
  }
  return DocumentParser(text, where, limits).documents();
}

std::string yaml_place(const std::string& where, int line) { return concat(where, ", line ", line); }

std::string yaml_description(const YamlNode& node) {
  switch (node.kind) {
    case Kind::kNull:
      return "empty";
    case Kind::kScalar:
      return concat("\"", printable(node.text), "\"");
    case Kind::kList:
      return "a list";
    case Kind::kMapping:
      return "a mapping";
  }
  return "";
}

std::optional<bool> yaml_bool(const YamlNode& node) {
  if (!node.is_scalar() || node.is_quoted) return std::nullopt;
  std::string word = node.text;
  std::transform(word.begin(), word.end(), word.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (word == "true" || word == "yes" || word == "on") return true;
  if (word == "false" || word == "no" || word == "off") return false;
  return std::nullopt;
}

std::optional<double> yaml_number(const YamlNode& node) {
  if (!node.is_scalar()) return std::nullopt;
  const std::string digits = digits_of(node);
  double value = 0;
  const auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (failure != std::errc() || end != digits.data() + digits.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

std::optional<long long> yaml_integer(const YamlNode& node) {
  if (!node.is_scalar()) return std::nullopt;
  const std::string digits = digits_of(node);
  long long value = 0;
  const auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (failure != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return value;
}

}  // namespace skein
