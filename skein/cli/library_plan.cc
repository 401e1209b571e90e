#include "skein/cli/library_plan.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <numeric>
#include <set>

#include "skein/base/concat.h"
#include "skein/cli/prompt_flags.h"
#include "skein/io/yaml.h"

namespace skein {
namespace {

constexpr const char* kPlanKeys[] = {"base",      "out",       "work",   "dtype", "device",
                                     "recompute", "base_bits", "expert", "gate",  "experts"};
constexpr const char* kExpertKeys[] = {"name", "data", "valid", "expert", "gate"};
// Options that the plan or the command decides.
constexpr const char* kDecided[] = {"base",   "data",      "valid",  "out",       "expert",    "dtype",
                                    "device", "recompute", "report", "overwrite", "resume",    "threads",
                                    "seed",   "progress",  "json",   "no-sync",   "base-bits", "allow-other-base",
                                    "help"};

class Reader {
 public:
  Reader(const std::string& path, const CommonOptions& common)
      : path_(path),
        folder_(path.find('/') == std::string::npos ? "" : path.substr(0, path.rfind('/'))),
        common_(common) {}

  LibraryPlan read(const YamlNode& node) {
    if (!node.is_mapping()) refuse(node.line, concat("the plan is ", yaml_description(node), "; expected a mapping"));
    check_keys(node, kPlanKeys);
    LibraryPlan plan;
    plan.base = path_at(node, "base");
    plan.out = path_at(node, "out");
    while (plan.out.size() > 1 && plan.out.back() == '/') plan.out.pop_back();
    plan.work = node.find("work") != nullptr ? path_at(node, "work") : plan.out + ".training";
    if (node.find("dtype") != nullptr) plan.dtype = word_at(node, "dtype");
    if (node.find("device") != nullptr) plan.device = word_at(node, "device");
    if (const YamlNode* recompute = node.find("recompute")) {
      const auto value = yaml_bool(*recompute);
      if (!value)
        refuse(recompute->line, concat("recompute is ", yaml_description(*recompute), "; expected true or false"));
      plan.recompute = *value;
    }
    if (const YamlNode* bits = node.find("base_bits")) {
      const auto value = yaml_integer(*bits);
      if (!value || (*value != 8 && *value != 4)) {
        refuse(bits->line, concat("base_bits is ", yaml_description(*bits), "; expected 8 or 4"));
      }
      plan.base_bits = static_cast<int>(*value);
    }
    const YamlNode* experts = node.find("experts");
    if (experts == nullptr || !experts->is_list() || experts->items.empty()) {
      refuse(experts == nullptr ? node.line : experts->line, "a plan needs a list \"experts\" with at least one in it");
    }
    std::set<std::string> names;
    for (const YamlNode& item : experts->items) {
      plan.experts.push_back(expert(plan, node, item));
      if (!names.insert(plan.experts.back().name).second) {
        refuse(item.line, concat("a second expert ", printable(plan.experts.back().name)));
      }
    }
    return plan;
  }

 private:
  [[noreturn]] void refuse(int line, const std::string& sentence) const {
    throw Failure({concat(yaml_place(path_, line), ": ", sentence), ErrorKind::kUsage});
  }

  template <std::size_t N>
  void check_keys(const YamlNode& node, const char* const (&known)[N]) const {
    for (const YamlMember& member : node.members) {
      if (std::find(std::begin(known), std::end(known), member.key) != std::end(known)) continue;
      std::string list;
      for (const char* key : known) list += concat(list.empty() ? "" : ", ", key);
      refuse(member.key_line, concat("unknown key ", printable(member.key), "; expected one of ", list));
    }
  }

  std::string word_at(const YamlNode& node, std::string_view key) const {
    const YamlNode* value = node.find(key);
    if (value == nullptr) refuse(node.line, concat("\"", key, "\" is missing"));
    if (!value->is_scalar() || value->text.empty()) {
      refuse(value->line, concat(key, " is ", yaml_description(*value), "; expected a word"));
    }
    return value->text;
  }
  std::string resolved(const std::string& word) const {
    return folder_.empty() || word.starts_with('/') ? word : concat(folder_, "/", word);
  }
  std::string path_at(const YamlNode& node, std::string_view key) const { return resolved(word_at(node, key)); }

  // A word or a list of words.
  std::vector<std::string> words_of(const YamlNode& node, std::string_view key) const {
    std::vector<std::string> words;
    const auto add = [&](const YamlNode& item) {
      if (!item.is_scalar()) refuse(item.line, concat(key, " holds ", yaml_description(item), "; expected words"));
      words.push_back(item.text);
    };
    if (node.is_list()) {
      for (const YamlNode& item : node.items) add(item);
    } else {
      add(node);
    }
    return words;
  }

  // "--steps 80" of {steps: 80}; keys of `own` come before those of the plan.
  std::vector<std::string> options_of(const YamlNode* own, const YamlNode* common) const {
    std::vector<std::string> words;
    std::set<std::string> given;
    for (const YamlNode* node : {own, common}) {
      if (node == nullptr) continue;
      if (!node->is_mapping()) {
        refuse(node->line, concat("options are ", yaml_description(*node), "; expected a mapping such as {steps: 80}"));
      }
      for (const YamlMember& member : node->members) {
        std::string name = member.key;
        std::replace(name.begin(), name.end(), '_', '-');
        if (std::find(std::begin(kDecided), std::end(kDecided), name) != std::end(kDecided)) {
          refuse(member.key_line, concat(printable(member.key),
                                         " is no option of one expert here: the plan or the "
                                         "command decides it"));
        }
        if (!given.insert(name).second) continue;
        const auto flag = yaml_bool(member.value);
        if (flag && !*flag) continue;
        words.push_back("--" + name);
        if (flag) continue;
        const auto values = words_of(member.value, member.key);
        words.insert(words.end(), values.begin(), values.end());
      }
    }
    return words;
  }

  // The flags of a command line that nobody typed.
  std::unique_ptr<TrainFlags> flags_of(Trained trained, std::vector<std::string> words, const std::string& name,
                                       int line) const {
    auto flags = std::make_unique<TrainFlags>();
    flags->trained = trained;
    CLI::App command;
    add_train_flags(command, *flags);
    std::reverse(words.begin(), words.end());  // as CLI11 takes them
    try {
      command.parse(words);
      flags->common = common_;
      unescape_separator(flags->train.prompt);
      take_train_flags(*flags);
    } catch (const CLI::ParseError& error) {
      refuse(line, concat("the ", trained == Trained::kGate ? "gate" : "expert", " of ", printable(name), ": ",
                          printable(error.what())));
    } catch (const Failure& failure) {
      refuse(line, concat(printable(name), ": ", failure.what()));
    }
    flags->paper_rules.clear();  // they refer to `command`
    flags->train.resume = true;
    flags->train.program_version = SKEIN_VERSION;
    return flags;
  }

  PlannedExpert expert(const LibraryPlan& plan, const YamlNode& all, const YamlNode& node) const {
    if (!node.is_mapping()) refuse(node.line, concat("an expert is ", yaml_description(node), "; expected a mapping"));
    check_keys(node, kExpertKeys);
    PlannedExpert expert;
    expert.name = word_at(node, "name");
    const bool plain = expert.name.find_first_not_of(
                           "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") == std::string::npos;
    if (!plain || expert.name.front() == '.') {
      refuse(node.line, concat("the name ", printable(expert.name), "; expected letters, digits, _, - and ."));
    }
    const YamlNode* data = node.find("data");
    if (data == nullptr) refuse(node.line, concat(expert.name, " has no data"));
    std::vector<std::string> common = {"--base", plan.base, "--data"};
    for (const std::string& word : words_of(*data, "data")) common.push_back(resolved(word));
    if (const YamlNode* valid = node.find("valid")) {
      common.push_back("--valid");
      for (const std::string& word : words_of(*valid, "valid")) common.push_back(resolved(word));
    }
    const auto typed = [&](const char* target, const char* key) {
      std::vector<std::string> words = common;
      words.insert(words.end(), {target, concat(plan.work, "/", expert.name)});
      const std::vector<std::string> options = options_of(node.find(key), all.find(key));
      words.insert(words.end(), options.begin(), options.end());
      return words;
    };
    expert.expert = flags_of(Trained::kExpert, typed("--out", "expert"), expert.name, node.line);
    expert.gate = flags_of(Trained::kGate, typed("--expert", "gate"), expert.name, node.line);
    return expert;
  }

  std::string path_, folder_;
  const CommonOptions& common_;
};

}  // namespace

std::int64_t PlannedExpert::cost() const {
  return expert->train.steps * expert->train.batch + gate->train.steps * gate->train.batch;
}

LibraryPlan read_library_plan(Env& env, const std::string& path, const CommonOptions& common) {
  const std::vector<YamlNode> documents = or_throw(parse_yaml(or_throw(read_text_file(env, path)), path));
  if (documents.size() != 1) {
    throw Failure({concat(path, ": ", documents.size(), " documents; expected one plan"), ErrorKind::kUsage});
  }
  return Reader(path, common).read(documents.front());
}

std::vector<std::vector<std::size_t>> deal_out(const std::vector<std::int64_t>& costs, int ranks) {
  std::vector<std::size_t> order(costs.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return costs[a] > costs[b]; });
  std::vector<std::vector<std::size_t>> dealt(static_cast<std::size_t>(ranks));
  std::vector<std::int64_t> load(static_cast<std::size_t>(ranks), 0);
  for (const std::size_t job : order) {
    const auto rank = static_cast<std::size_t>(std::min_element(load.begin(), load.end()) - load.begin());
    dealt[rank].push_back(job);
    load[rank] += costs[job];
  }
  return dealt;
}

}  // namespace skein
