#include "skein/eval/comparison.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "skein/base/concat.h"
#include "skein/base/median.h"
#include "skein/eval/statistics.h"

namespace skein {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// One task's examples in the order of the first method: every method's scores stand at the same places.
struct TaskTable {
  std::vector<std::string> ids, templates;
  std::map<std::pair<std::string, std::string>, std::size_t> place;  // (id, template) -> cell
  std::vector<std::vector<double>> scores;                           // [method](ids x templates), NaN: no such pair
};

std::size_t place_of(std::vector<std::string>& names, const std::string& name) {
  const auto it = std::find(names.begin(), names.end(), name);
  if (it != names.end()) return static_cast<std::size_t>(it - names.begin());
  names.push_back(name);
  return names.size() - 1;
}

class Tables {
 public:
  static Result<std::vector<TaskTable>> make(const std::vector<std::string>& methods,
                                             const std::vector<std::vector<ScoredExample>>& examples,
                                             const std::vector<ComparedTask>& tasks) {
    std::map<std::string, std::size_t> task_place;
    for (std::size_t t = 0; t < tasks.size(); ++t) task_place[tasks[t].name] = t;
    std::vector<TaskTable> tables(tasks.size());
    std::vector<std::map<std::string, std::size_t>> id_place(tasks.size());
    std::vector<std::vector<std::pair<std::size_t, std::size_t>>> cells(tasks.size());  // (id, template)
    for (const ScoredExample& example : examples.front()) {
      const auto task = task_place.find(example.task);
      if (task == task_place.end())
        return Error{concat("results of task ", printable(example.task), ", which is not in the plan")};
      TaskTable& table = tables[task->second];
      const auto [id, is_new] = id_place[task->second].try_emplace(example.id, table.ids.size());
      if (is_new) table.ids.push_back(example.id);
      const std::size_t column = place_of(table.templates, example.template_name);
      if (!table.place.emplace(std::make_pair(example.id, example.template_name), cells[task->second].size()).second) {
        return Error{concat("task ", printable(example.task), ": the id ", printable(example.id),
                            " stands twice with one template; ids tell examples apart")};
      }
      cells[task->second].emplace_back(id->second, column);
    }
    for (std::size_t t = 0; t < tasks.size(); ++t) {
      if (tables[t].ids.empty()) return Error{concat("no result of task ", printable(tasks[t].name))};
      tables[t].scores.assign(methods.size(),
                              std::vector<double>(tables[t].ids.size() * tables[t].templates.size(), kNaN));
    }
    for (std::size_t m = 0; m < methods.size(); ++m) {
      std::size_t count = 0;
      for (const ScoredExample& example : examples[m]) {
        const auto task = task_place.find(example.task);
        const auto it = task == task_place.end() ? decltype(tables[0].place.end()){}
                                                 : tables[task->second].place.find({example.id, example.template_name});
        if (task == task_place.end() || it == tables[task->second].place.end()) {
          return Error{concat("method ", printable(methods[m]), " answered ", printable(example.id), " of ",
                              printable(example.task), ", which ", printable(methods[0]), " did not")};
        }
        TaskTable& table = tables[task->second];
        const auto [row, column] = cells[task->second][it->second];
        table.scores[m][row * table.templates.size() + column] = example.score;
        ++count;
      }
      if (count != examples.front().size()) {
        return Error{concat("method ", printable(methods[m]), " answered ", count, " examples and ",
                            printable(methods[0]), " ", examples.front().size())};
      }
    }
    return tables;
  }
};

// The task's score when id i counts times[i] times.
double task_score(const TaskTable& table, std::size_t method, const std::vector<int>& times, OverTemplates over) {
  const std::size_t width = table.templates.size();
  std::vector<double> sums(width, 0), counts(width, 0);
  const double* scores = table.scores[method].data();
  for (std::size_t i = 0; i < times.size(); ++i, scores += width) {
    if (times[i] == 0) continue;
    for (std::size_t t = 0; t < width; ++t) {
      if (std::isnan(scores[t])) continue;
      sums[t] += times[i] * scores[t];
      counts[t] += times[i];
    }
  }
  std::vector<double> means;
  for (std::size_t t = 0; t < width; ++t) {
    if (counts[t] > 0) means.push_back(sums[t] / counts[t]);
  }
  return over == OverTemplates::kMean ? mean(means) : median(means);
}

// An id's mean over its templates.
double id_score(const TaskTable& table, std::size_t method, std::size_t id) {
  const std::size_t width = table.templates.size();
  double sum = 0, count = 0;
  for (std::size_t t = 0; t < width; ++t) {
    const double score = table.scores[method][id * width + t];
    if (std::isnan(score)) continue;
    sum += score;
    ++count;
  }
  return sum / count;
}

// replicates[task][method][b]; b = 0 is the sample itself.
using Replicates = std::vector<std::vector<std::vector<double>>>;

Replicates make_replicates(const std::vector<TaskTable>& tables, const std::vector<ComparedTask>& tasks,
                           std::size_t num_methods, const ComparisonOptions& options) {
  Replicates all(tables.size());
  for (std::size_t t = 0; t < tables.size(); ++t) {
    Resampler resampler(options.seed, tasks[t].name, tables[t].ids.size());
    all[t].assign(num_methods, {});
    for (int b = 0; b <= options.num_resamples; ++b) {
      const std::vector<int> times = b == 0 ? std::vector<int>(tables[t].ids.size(), 1) : resampler.draw();
      for (std::size_t m = 0; m < num_methods; ++m)
        all[t][m].push_back(task_score(tables[t], m, times, options.over_templates));
    }
  }
  return all;
}

Estimate estimate(const std::vector<double>& replicates) {
  const auto [low, high] = percentile_interval({replicates.begin() + 1, replicates.end()});
  return {replicates.front(), low, high};
}

// Mean over the group's categories of the mean over their tasks, per replicate; tasks that are NaN are left out.
std::vector<double> group_means(const TaskGroup& group, const std::vector<ComparedTask>& tasks,
                                const std::vector<const std::vector<double>*>& values) {
  std::vector<std::string> categories;
  std::vector<std::vector<std::size_t>> members;
  for (std::size_t i = 0; i < group.tasks.size(); ++i) {
    if (values[i] == nullptr) continue;
    const ComparedTask& task = tasks[group.tasks[i]];
    const std::size_t place = place_of(categories, task.category.empty() ? "task " + task.name : task.category);
    members.resize(categories.size());
    members[place].push_back(i);
  }
  if (members.empty()) return {kNaN, kNaN};
  std::vector<double> means(values[members[0][0]]->size(), 0);
  for (const auto& places : members) {
    for (const std::size_t i : places) {
      const double share = 1.0 / static_cast<double>(places.size() * members.size());
      for (std::size_t b = 0; b < means.size(); ++b) means[b] += share * (*values[i])[b];
    }
  }
  return means;
}

std::vector<TaskGroup> groups_of(const std::vector<ComparedTask>& tasks) {
  using enum TaskGroup::Kind;
  std::vector<TaskGroup> groups = {{"all tasks", {}, kAll}, {"held-in", {}, kHeldIn}, {"held-out", {}, kHeldOut}};
  std::vector<std::string> categories;
  for (std::size_t t = 0; t < tasks.size(); ++t) {
    groups[0].tasks.push_back(t);
    groups[tasks[t].is_held_in ? 1 : 2].tasks.push_back(t);
    if (tasks[t].category.empty()) continue;
    const std::size_t place = place_of(categories, tasks[t].category) + 3;
    if (place == groups.size()) groups.push_back({tasks[t].category, {}, kCategory});
    groups[place].tasks.push_back(t);
  }
  // A set that is all tasks, or none, says nothing new.
  std::erase_if(groups, [&](const TaskGroup& group) {
    return group.tasks.empty() || (group.kind != kAll && group.tasks.size() == tasks.size());
  });
  for (std::size_t t = 0; t < tasks.size(); ++t) groups.push_back({tasks[t].name, {t}, kTask});
  return groups;
}

class Comparing {
 public:
  Comparing(const Comparison& comparison, const std::vector<TaskTable>& tables, const Replicates& replicates,
            std::size_t reference)
      : comparison_(comparison), tables_(tables), replicates_(replicates), reference_(reference) {
    const auto& methods = comparison.methods;
    for (const ComparedTask& task : comparison.tasks) {
      const auto own = std::find(methods.begin(), methods.end(), task.own_expert);
      divisors_.push_back(!task.is_held_in       ? reference
                          : own == methods.end() ? methods.size()
                                                 : static_cast<std::size_t>(own - methods.begin()));
    }
  }

  GroupResult run(const TaskGroup& group) const {
    GroupResult result{group, {}, {}, {}};
    const std::vector<double> of_reference = means(group, reference_);
    std::vector<double> bootstrap_p, mcnemar_p;
    for (std::size_t m = 0; m < comparison_.methods.size(); ++m) {
      std::vector<double> score = means(group, m);
      result.scores.push_back(estimate(score));
      result.normalised.push_back(estimate(normalised(group, m)));
      for (std::size_t b = 0; b < score.size(); ++b) score[b] -= of_reference[b];
      Difference difference;
      difference.gain = estimate(score);
      count_ids(group, m, difference);
      // The reference is not tested against itself: it would make every other test stricter.
      bootstrap_p.push_back(m == reference_ ? kNaN : bootstrap_p_value({score.begin() + 1, score.end()}));
      mcnemar_p.push_back(m == reference_ ? kNaN : mcnemar_p_value(difference.wins, difference.losses));
      result.differences.push_back(difference);
    }
    bootstrap_p = holm_corrected(bootstrap_p);
    mcnemar_p = holm_corrected(mcnemar_p);
    for (std::size_t m = 0; m < comparison_.methods.size(); ++m) {
      result.differences[m].bootstrap_p = m == reference_ ? 1 : bootstrap_p[m];
      result.differences[m].mcnemar_p = m == reference_ ? 1 : mcnemar_p[m];
    }
    return result;
  }

 private:
  std::vector<double> means(const TaskGroup& group, std::size_t method) const {
    std::vector<const std::vector<double>*> values;
    for (const std::size_t task : group.tasks) values.push_back(&replicates_[task][method]);
    return group_means(group, comparison_.tasks, values);
  }

  std::vector<double> normalised(const TaskGroup& group, std::size_t method) const {
    std::vector<std::vector<double>> ratios;
    std::vector<const std::vector<double>*> values;
    ratios.reserve(group.tasks.size());
    for (const std::size_t task : group.tasks) {
      const std::size_t divisor = divisors_[task];
      if (divisor == comparison_.methods.size() || replicates_[task][divisor].front() <= 0) {
        values.push_back(nullptr);
        continue;
      }
      // The divisor as measured: a draw in which it happens to be near 0 must not make the interval endless.
      std::vector<double>& ratio = ratios.emplace_back(replicates_[task][method]);
      for (double& value : ratio) value /= replicates_[task][divisor].front();
      values.push_back(&ratio);
    }
    return group_means(group, comparison_.tasks, values);
  }

  void count_ids(const TaskGroup& group, std::size_t method, Difference& difference) const {
    for (const std::size_t task : group.tasks) {
      const TaskTable& table = tables_[task];
      for (std::size_t id = 0; id < table.ids.size(); ++id) {
        const double gain = id_score(table, method, id) - id_score(table, reference_, id);
        difference.wins += gain > 1e-12 ? 1 : 0;
        difference.losses += gain < -1e-12 ? 1 : 0;
      }
    }
  }

  const Comparison& comparison_;
  const std::vector<TaskTable>& tables_;
  const Replicates& replicates_;
  std::size_t reference_;
  std::vector<std::size_t> divisors_;  // per task: the method whose score is 1; as many as methods: none
};

}  // namespace

Result<Comparison> compare_methods(const std::vector<std::string>& methods,
                                   const std::vector<std::vector<ScoredExample>>& examples,
                                   const std::vector<ComparedTask>& tasks, const ComparisonOptions& options) {
  const auto reference = std::find(methods.begin(), methods.end(), options.reference);
  if (reference == methods.end())
    return Error{concat("the reference \"", printable(options.reference), "\" is none of the methods")};
  SKEIN_ASSIGN(const std::vector<TaskTable> tables, Tables::make(methods, examples, tasks));
  Comparison comparison{methods, tasks, {}, {}, {}};
  for (const TaskTable& table : tables) {
    comparison.num_ids.push_back(static_cast<std::int64_t>(table.ids.size()));
    comparison.num_templates.push_back(static_cast<std::int64_t>(table.templates.size()));
  }
  const Replicates replicates = make_replicates(tables, tasks, methods.size(), options);
  const Comparing comparing(comparison, tables, replicates, static_cast<std::size_t>(reference - methods.begin()));
  for (const TaskGroup& group : groups_of(tasks)) comparison.groups.push_back(comparing.run(group));
  return comparison;
}

}  // namespace skein
