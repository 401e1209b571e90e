#include "skein/eval/plan_tasks.h"

#include <algorithm>
#include <map>
#include <set>

#include "skein/base/concat.h"
#include "skein/eval/task_files.h"
#include "skein/io/digest.h"

namespace skein {
namespace {

void add_rates(AskedTask& asked) {
  std::map<std::string, int> answers;
  int most = 0;
  for (const Example& example : asked.examples) {
    const auto place = std::find(example.choices.begin(), example.choices.end(), example.target);
    const std::string answer =
        example.choices.empty() ? "text " + example.target : concat("place ", place - example.choices.begin());
    most = std::max(most, ++answers[answer]);
    if (!example.choices.empty()) asked.chance += 1 / static_cast<double>(example.choices.size());
  }
  asked.chance /= static_cast<double>(asked.examples.size());
  asked.majority = most / static_cast<double>(asked.examples.size());
}

// Ids as given tell examples apart, or get a number.
void make_distinct(std::vector<Example>& examples) {
  std::map<std::pair<std::string, std::string>, int> seen;
  for (Example& example : examples) {
    const int times = seen[{example.id, example.template_name}]++;
    if (times > 0) example.id += concat(" #", times);
  }
}

void keep_first_ids(std::vector<Example>& examples, std::int64_t limit) {
  if (limit == 0) return;
  std::set<std::string> ids;
  std::erase_if(examples, [&](const Example& example) {
    if (ids.contains(example.id)) return false;
    if (static_cast<std::int64_t>(ids.size()) == limit) return true;
    ids.insert(example.id);
    return false;
  });
}

void keep_first_templates(std::vector<Example>& examples, std::int64_t templates) {
  if (templates == 0) return;
  std::map<std::string, std::int64_t> seen;
  std::erase_if(examples, [&](const Example& example) { return ++seen[example.id] > templates; });
}

}  // namespace

Result<std::vector<AskedTask>> read_plan_tasks(Env& env, const Plan& plan) {
  std::vector<AskedTask> asked;
  for (const PlanTask& entry : plan.tasks) {
    std::vector<std::string> digests;
    for (const std::string& path : entry.data) {
      SKEIN_ASSIGN(std::string digest, digest_of_file(env, path));
      digests.push_back(std::move(digest));
    }
    SKEIN_ASSIGN(std::vector<Example> examples, read_task_files(env, entry.data));
    const std::size_t first = asked.size();
    for (Example& example : examples) {
      if (!entry.name.empty()) example.task = entry.name;
      if (!entry.metric.empty()) example.metric = entry.metric;
      auto place = std::find_if(asked.begin(), asked.end(),
                                [&](const AskedTask& known) { return known.task.name == example.task; });
      if (place != asked.end() && static_cast<std::size_t>(place - asked.begin()) < first) {
        return Error{concat(plan.path, ": two entries of \"tasks\" have the task ", printable(example.task),
                            "; give one of them a name")};
      }
      if (place == asked.end()) {
        asked.push_back({{example.task, entry.category, entry.is_held_in, entry.own_expert}, {}, 0, 0, digests});
        place = asked.end() - 1;
      }
      place->examples.push_back(std::move(example));
    }
    for (std::size_t t = first; t < asked.size(); ++t) {
      make_distinct(asked[t].examples);
      keep_first_ids(asked[t].examples, entry.limit);
      keep_first_templates(asked[t].examples, entry.templates);
      add_rates(asked[t]);
    }
  }
  return asked;
}

}  // namespace skein
