#include "skein/eval/plan.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <set>

#include "skein/base/concat.h"
#include "skein/io/yaml.h"

namespace skein {
namespace {

std::string resolved(const std::string& plan, const std::string& path) {
  return path.empty() || path.front() == '/' ? path : join_path(parent_folder(plan), path);
}

// MODEL, MODEL+ADAPTER or {base}+ADAPTER: recipes of merges lie elsewhere, so both halves need the plan's folder.
std::string resolved_checkpoint(const std::string& plan, const std::string& checkpoint) {
  const std::size_t plus = checkpoint.find('+');
  const std::string model = checkpoint.substr(0, plus);
  std::string whole = model.starts_with("{base}") ? model : resolved(plan, model);
  if (plus != std::string::npos) whole += "+" + resolved(plan, checkpoint.substr(plus + 1));
  return whole;
}

// Reads one kind of mapping: which keys there are, and what each does.
class Mapping {
 public:
  using Reader = std::function<Status(const YamlNode&)>;

  explicit Mapping(std::string where) : where_(std::move(where)) {}

  Mapping& key(const char* name, Reader reader) {
    readers_.emplace_back(name, std::move(reader));
    return *this;
  }
  Mapping& text(const char* name, std::string& into) {
    return key(name, [this, name, &into](const YamlNode& node) -> Status {
      if (!node.is_scalar() || node.text.empty()) return wrong(node, name, "a text");
      into = node.text;
      return {};
    });
  }
  Mapping& path(const char* name, std::string& into) {
    return key(name, [this, name, &into](const YamlNode& node) -> Status {
      if (!node.is_scalar() || node.text.empty()) return wrong(node, name, "a path");
      into = resolved(where_, node.text);
      return {};
    });
  }
  template <typename Integer>
  Mapping& count(const char* name, Integer& into, std::int64_t least = 0) {
    return key(name, [this, name, least, &into](const YamlNode& node) -> Status {
      const auto value = yaml_integer(node);
      if (!value || *value < least || *value > std::numeric_limits<std::int32_t>::max())
        return wrong(node, name, concat("a whole number from ", least));
      into = static_cast<Integer>(*value);
      return {};
    });
  }
  Mapping& flag(const char* name, bool& into) {
    return key(name, [this, name, &into](const YamlNode& node) -> Status {
      const auto value = yaml_bool(node);
      if (!value) return wrong(node, name, "true or false");
      into = *value;
      return {};
    });
  }
  Mapping& one_of(const char* name, std::string& into, std::vector<std::string> words) {
    return key(name, [this, name, words = std::move(words), &into](const YamlNode& node) -> Status {
      if (!node.is_scalar() || std::find(words.begin(), words.end(), node.text) == words.end()) {
        std::string known;
        for (const std::string& word : words) known += concat(known.empty() ? "" : ", ", word);
        return wrong(node, name, "one of " + known);
      }
      into = node.text;
      return {};
    });
  }
  // A text or a list of texts.
  Mapping& texts(const char* name, std::vector<std::string>& into, bool are_paths = false) {
    return key(name, [this, name, are_paths, &into](const YamlNode& node) -> Status {
      std::vector<const YamlNode*> nodes;
      if (node.is_scalar()) nodes.push_back(&node);
      for (const YamlNode& item : node.items) nodes.push_back(&item);
      for (const YamlNode* item : nodes) {
        if (!item->is_scalar()) return wrong(*item, name, "texts");
        into.push_back(are_paths ? resolved(where_, item->text) : item->text);
      }
      return nodes.empty() ? wrong(node, name, "a text or a list of texts") : Status();
    });
  }
  // Other keys go here; without it they are errors.
  Mapping& others(std::function<Status(const YamlMember&)> reader) {
    others_ = std::move(reader);
    return *this;
  }

  Status read(const YamlNode& node, const std::string& what) const {
    if (!node.is_mapping()) {
      return Error{
          concat(yaml_place(where_, node.line), ": ", what, " is ", yaml_description(node), "; expected a mapping")};
    }
    for (const YamlMember& member : node.members) {
      const auto reader =
          std::find_if(readers_.begin(), readers_.end(), [&](const auto& known) { return known.first == member.key; });
      if (reader != readers_.end()) {
        SKEIN_TRY(reader->second(member.value));
      } else if (others_) {
        SKEIN_TRY(others_(member));
      } else {
        std::string known;
        for (const auto& [name, unused] : readers_) known += concat(known.empty() ? "" : ", ", name);
        return Error{concat(yaml_place(where_, member.key_line), ": ", what, " has the key \"", printable(member.key),
                            "\"; the keys are ", known)};
      }
    }
    return {};
  }

  Error wrong(const YamlNode& node, const std::string& key, const std::string& expected) const {
    return Error{concat(yaml_place(where_, node.line), ": \"", printable(key), "\" is ", yaml_description(node),
                        "; expected ", expected)};
  }
  const std::string& where() const { return where_; }

 private:
  std::string where_;
  std::vector<std::pair<std::string, Reader>> readers_;
  std::function<Status(const YamlMember&)> others_;
};

Status read_task(const YamlNode& node, const Plan& plan, PlanTask& task) {
  task.limit = plan.limit;
  task.templates = plan.templates;
  if (node.is_scalar()) {
    task.data = {resolved(plan.path, node.text)};
    return {};
  }
  Mapping mapping(plan.path);
  mapping.texts("data", task.data, true)
      .text("name", task.name)
      .text("category", task.category)
      .text("metric", task.metric)
      .text("expert", task.own_expert)
      .flag("held_in", task.is_held_in)
      .count("limit", task.limit)
      .count("templates", task.templates);
  SKEIN_TRY(mapping.read(node, "a task"));
  if (task.data.empty()) return Error{concat(yaml_place(plan.path, node.line), ": a task without \"data\"")};
  if (!task.own_expert.empty()) task.is_held_in = true;
  return {};
}

// "top_k" -> "--top-k".
std::string flag_of(std::string key) {
  std::replace(key.begin(), key.end(), '_', '-');
  return "--" + key;
}

// The options whose values are paths.
bool is_path_option(const std::string& flag) {
  return flag == "--base" || flag == "--library" || flag == "--adapter" || flag == "--mixture" ||
         flag == "--sentence-encoder";
}

// An option's words. Lists are joined by commas, as the command line takes them.
Status add_option(const Plan& plan, const std::string& key, const YamlNode& value, std::vector<std::string>& flags) {
  const std::string flag = flag_of(key);
  if (value.is_list()) {
    std::string joined;
    for (const YamlNode& item : value.items) {
      if (!item.is_scalar()) return Mapping(plan.path).wrong(item, key, "a list of words");
      joined += concat(joined.empty() ? "" : ",", item.text);
    }
    if (!joined.empty()) flags.insert(flags.end(), {flag, joined});
    return {};
  }
  if (!value.is_scalar()) return Mapping(plan.path).wrong(value, key, "a value or a list");
  if (const auto on = yaml_bool(value)) {
    if (*on) flags.push_back(flag);
    return {};
  }
  flags.insert(flags.end(), {flag, is_path_option(flag) ? resolved(plan.path, value.text) : value.text});
  return {};
}

// "--router phatgoose --top-k 1" -> "phatgoose, top-k 1"; "--adapter dir/x" -> "adapter x".
std::string name_of(const std::vector<std::string>& flags) {
  std::string name;
  for (std::size_t i = 0; i < flags.size(); ++i) {
    const std::string key = flags[i].substr(2);
    const bool has_value = i + 1 < flags.size() && !flags[i + 1].starts_with("--");
    const std::string value = !has_value ? "" : is_path_option(flags[i]) ? base_name(flags[i + 1]) : flags[i + 1];
    const std::string words = key == "router" ? value : concat(key, has_value ? " " : "", value);
    name += concat(name.empty() ? "" : ", ", words);
    if (has_value) ++i;
  }
  return name.empty() ? "base" : name;
}

// One method, or one for each combination of a sweep.
class MethodReader {
 public:
  MethodReader(const Plan& plan, std::vector<PlanMethod>& methods) : plan_(plan), methods_(methods) {}

  Status read(const YamlNode& node) {
    PlanMethod method;
    method.line = node.line;
    if (node.is_scalar()) {
      if (node.text == "every expert") {
        method.kind = PlanMethod::Kind::kEveryExpert;
      } else if (node.text != "base") {
        method.flags = {"--router", node.text};
      }
      return add(method);
    }
    std::vector<std::pair<std::string, const YamlNode*>> sweep;
    Mapping mapping(plan_.path);
    mapping.text("name", method.name).path("merge", method.recipe);
    mapping.key("sweep", [&](const YamlNode& options) -> Status {
      Mapping inner(plan_.path);
      inner.others([&](const YamlMember& option) -> Status {
        if (!option.value.is_list() || option.value.items.empty())
          return inner.wrong(option.value, option.key, "a list of values");
        sweep.emplace_back(option.key, &option.value);
        return {};
      });
      return inner.read(options, "a sweep");
    });
    mapping.others([&](const YamlMember& option) { return add_option(plan_, option.key, option.value, method.flags); });
    SKEIN_TRY(mapping.read(node, "a method"));
    if (!method.recipe.empty()) {
      method.kind = PlanMethod::Kind::kMerge;
      if (!method.flags.empty() || !sweep.empty()) {
        return Error{concat(yaml_place(plan_.path, node.line), ": a method with \"merge\" and ",
                            sweep.empty() ? method.flags.front() : "a sweep", "; a merge takes only a name")};
      }
      if (method.name.empty()) method.name = "merge " + base_name(method.recipe);
    }
    return sweep_from(method, sweep, 0);
  }

 private:
  Status sweep_from(const PlanMethod& method, const std::vector<std::pair<std::string, const YamlNode*>>& sweep,
                    std::size_t at) {
    if (at == sweep.size()) return add(method);
    for (const YamlNode& value : sweep[at].second->items) {
      PlanMethod next = method;
      std::vector<std::string> words;
      SKEIN_TRY(add_option(plan_, sweep[at].first, value, words));
      next.flags.insert(next.flags.end(), words.begin(), words.end());
      if (!next.name.empty()) next.name += ", " + name_of(words);
      SKEIN_TRY(sweep_from(next, sweep, at + 1));
    }
    return {};
  }

  Status add(PlanMethod method) {
    constexpr std::size_t kMost = 10'000;
    using enum PlanMethod::Kind;
    if (method.name.empty() && method.kind == kModel) method.name = name_of(method.flags);
    for (const PlanMethod& other : methods_) {
      if (other.name != method.name || other.kind != method.kind) continue;
      return Error{concat(yaml_place(plan_.path, method.line), ": the method \"",
                          printable(method.kind == kEveryExpert ? "every expert" : method.name),
                          "\" stands twice; give one of them another name")};
    }
    if (methods_.size() == kMost) return Error{concat(plan_.path, ": more than ", kMost, " methods")};
    methods_.push_back(std::move(method));
    return {};
  }

  const Plan& plan_;
  std::vector<PlanMethod>& methods_;
};

// ------------------------------------------ the grid of merges ------------------------------------------

Status read_whole_numbers(const Mapping& mapping, const YamlNode& node, const std::string& key, std::int64_t least,
                          std::vector<std::int64_t>& into) {
  if (!node.is_list() || node.items.empty()) return mapping.wrong(node, key, "a list of whole numbers");
  for (const YamlNode& item : node.items) {
    const auto value = yaml_integer(item);
    if (!value || *value < least) return mapping.wrong(item, key, concat("whole numbers from ", least));
    into.push_back(*value);
  }
  return {};
}

Status read_merge_method(const Plan& plan, const YamlNode& node, MergeGrid::Method& method) {
  if (node.is_scalar()) {
    method.name = node.text;
    return {};
  }
  Mapping mapping(plan.path);
  mapping.text("merge_method", method.name).others([&](const YamlMember& member) -> Status {
    MergeParameter parameter{member.key, {}};
    if (member.value.is_scalar()) parameter.values.push_back(member.value.text);
    for (const YamlNode& item : member.value.items) {
      if (!item.is_scalar()) return mapping.wrong(item, member.key, "values");
      parameter.values.push_back(item.text);
    }
    if (parameter.values.empty()) return mapping.wrong(member.value, member.key, "a value or a list of them");
    method.parameters.push_back(std::move(parameter));
    return {};
  });
  SKEIN_TRY(mapping.read(node, "a merge method"));
  if (method.name.empty())
    return Error{concat(yaml_place(plan.path, node.line), ": a method without \"merge_method\"")};
  return {};
}

Status read_merging(const YamlNode& node, Plan& plan) {
  MergeGrid& grid = plan.merging;
  Mapping mapping(plan.path);
  mapping.texts("bases", grid.bases, true).text("dtype", grid.dtype);
  mapping.key("experts", [&](const YamlNode& experts) -> Status {
    Mapping inner(plan.path);
    inner.others([&](const YamlMember& member) -> Status {
      if (!member.value.is_scalar()) return inner.wrong(member.value, member.key, "a checkpoint");
      grid.experts.emplace_back(member.key, resolved_checkpoint(plan.path, member.value.text));
      return {};
    });
    return inner.read(experts, "\"experts\"");
  });
  mapping.key("methods", [&](const YamlNode& methods) -> Status {
    if (!methods.is_list()) return mapping.wrong(methods, "methods", "a list");
    for (const YamlNode& method : methods.items)
      SKEIN_TRY(read_merge_method(plan, method, grid.methods.emplace_back()));
    return {};
  });
  mapping.key("counts",
              [&](const YamlNode& counts) { return read_whole_numbers(mapping, counts, "counts", 1, grid.counts); });
  mapping.key("seeds",
              [&](const YamlNode& seeds) { return read_whole_numbers(mapping, seeds, "seeds", 0, grid.seeds); });
  SKEIN_TRY(mapping.read(node, "\"merging\""));
  if (grid.bases.empty()) grid.bases.push_back(plan.base);
  if (grid.seeds.empty()) grid.seeds.push_back(0);
  if (grid.experts.empty() || grid.methods.empty() || grid.counts.empty())
    return Error{concat(yaml_place(plan.path, node.line), ": \"merging\" needs experts, methods and counts")};
  for (const std::int64_t count : grid.counts) {
    if (count > static_cast<std::int64_t>(grid.experts.size())) {
      return Error{concat(yaml_place(plan.path, node.line), ": \"counts\" has ", count, "; there are ",
                          grid.experts.size(), " experts")};
    }
  }
  return {};
}

Status check_reference(Plan& plan) {
  if (plan.reference.empty()) {
    plan.reference = plan.methods.front().name;
    if (!plan.reference.empty()) return {};
    return Error{concat(plan.path, ": the first method is \"every expert\"; name the \"reference\"")};
  }
  const auto has_name = [&](const PlanMethod& method) { return method.name == plan.reference; };
  const bool some_expert = std::any_of(plan.methods.begin(), plan.methods.end(), [](const PlanMethod& method) {
    return method.kind == PlanMethod::Kind::kEveryExpert;
  });
  if (std::any_of(plan.methods.begin(), plan.methods.end(), has_name) ||
      (some_expert && plan.reference.starts_with("expert "))) {
    return {};
  }
  return Error{concat(plan.path, ": the reference \"", printable(plan.reference), "\" is none of the methods")};
}

}  // namespace

Result<Plan> read_plan(Env& env, const std::string& path) {
  Plan plan;
  plan.path = path;
  SKEIN_ASSIGN(plan.text, read_text_file(env, path, YamlLimits().max_bytes));
  SKEIN_ASSIGN(const std::vector<YamlNode> documents, parse_yaml(plan.text, path));
  if (documents.size() != 1) return Error{concat(path, ": ", documents.size(), " documents; a plan is one mapping")};
  const YamlNode *tasks = nullptr, *methods = nullptr, *merging = nullptr;
  const auto keep = [](const YamlNode*& place) {
    return [&place](const YamlNode& node) -> Status {
      place = &node;
      return {};
    };
  };
  Mapping mapping(path);
  mapping.path("base", plan.base)
      .path("library", plan.library)
      .key("tasks", keep(tasks))
      .key("methods", keep(methods))
      .key("merging", keep(merging))
      .text("reference", plan.reference)
      .count("limit", plan.limit)
      .count("templates", plan.templates)
      .one_of("scoring", plan.scoring, {"phatgoose", "t0", "lm-eval"})
      .one_of("over_templates", plan.over_templates, {"mean", "median"})
      .count("max_new_tokens", plan.max_new_tokens, 1)
      .texts("stop", plan.stop)
      .key("separator",
           [&](const YamlNode& node) -> Status {
             if (!node.is_scalar()) return mapping.wrong(node, "separator", "a text");
             plan.separator = node.text;
             return {};
           })
      .flag("chat", plan.chat)
      .count("max_input", plan.max_input, 1)
      .count("max_target", plan.max_target, 1)
      .count("seed", plan.seed)
      .count("resamples", plan.resamples, 1);
  SKEIN_TRY(mapping.read(documents.front(), "a plan"));
  if (plan.base.empty()) return Error{concat(path, ": no \"base\"; every plan names its base model")};
  for (const auto& [node, key] : {std::pair(tasks, "tasks"), std::pair(methods, "methods")}) {
    if (node == nullptr || !node->is_list() || node->items.empty())
      return Error{concat(path, ": no list of \"", key, "\"; a plan says which ", key, " to compare")};
  }
  for (const YamlNode& node : tasks->items) SKEIN_TRY(read_task(node, plan, plan.tasks.emplace_back()));
  MethodReader reader(plan, plan.methods);
  for (const YamlNode& node : methods->items) SKEIN_TRY(reader.read(node));
  if (merging != nullptr) SKEIN_TRY(read_merging(*merging, plan));
  SKEIN_TRY(check_reference(plan));
  return plan;
}

}  // namespace skein
