#include "skein/train/train_loop.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <optional>

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros_like.h>

#include "skein/base/concat.h"
#include "skein/base/log.h"
#include "skein/base/progress.h"
#include "skein/experts/mixture_router.h"
#include "skein/train/data_order.h"
#include "skein/train/loss.h"
#include "skein/train/optimiser.h"
#include "skein/train/ranks.h"
#include "skein/train/schedule.h"
#include "skein/train/train_log.h"
#include "skein/train/training_state.h"

namespace skein {
namespace {

std::vector<at::Tensor> clones(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> copies;
  for (const at::Tensor& tensor : tensors) copies.push_back(tensor.detach().clone());
  return copies;
}

void copy_into(const std::vector<at::Tensor>& to, const std::vector<at::Tensor>& from) {
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < to.size(); ++i) to[i].copy_(from[i]);
}

struct TokenLosses {
  double sum = 0;
  std::int64_t count = 0;
};
// Of batches rank, rank + ranks, ...; no gradient.
TokenLosses token_losses(const Backbone& backbone, const SlotFiller* filler, const TrainData& data,
                         std::int64_t batch_size, int rank, int ranks) {
  const at::NoGradGuard no_grad;
  std::vector<std::int64_t> idxs(data.examples.size());
  std::iota(idxs.begin(), idxs.end(), 0);
  const std::span<const std::int64_t> all(idxs);
  TokenLosses losses;
  const auto size = static_cast<std::size_t>(batch_size), skipped = static_cast<std::size_t>(ranks - 1) * size;
  for (std::size_t begin = static_cast<std::size_t>(rank) * size; begin < idxs.size(); begin += size + skipped) {
    const TargetBatch batch =
        make_target_batch(data, all.subspan(begin, std::min(size, idxs.size() - begin)), backbone);
    const TargetLoss loss =
        target_loss(backbone, target_hidden(backbone, batch, filler), batch.targets, /*row_weights=*/std::nullopt);
    losses.sum += loss.row_losses.to(at::kDouble).sum().item<double>();
    losses.count += batch.targets.size(0);
  }
  return losses;
}

class Loop {
 public:
  Loop(Env& env, const Backbone& backbone, const Trainee& trainee, const TrainData& data, const TrainData& valid,
       const TrainRun& run, const TrainOptions& options)
      : env_(env),
        backbone_(backbone),
        trainee_(trainee),
        data_(data),
        valid_(valid),
        run_(run),
        options_(options),
        comm_(run.comm != nullptr ? *run.comm : *alone_),
        optimiser_(make_optimiser(trainee.parameters, options)),
        order_(static_cast<std::int64_t>(data.examples.size()), options.seed) {
    if (options.by_task_rates && !data.task_of.empty()) {
      task_order_.emplace(data.task_of, TaskRates{options.task_cap, options.task_temperature}, options.seed);
    }
  }

  TrainReport train() {
    begin();
    Progress progress(run_.what, options_.steps, "steps");
    if (step_ == 0 && report_.best_step < 0 && run_.keep_best) validate();
    while (step_ < options_.steps) {
      const std::optional<StepFacts> facts = gradients_of_step();
      if (!facts) return stop_early();
      update(*facts);
      progress.update(step_, note(facts->loss));
      if (validation_is_due()) validate();
      if (step_ < options_.steps && save_is_due(*facts)) save();
    }
    save();
    if (!best_.empty()) set_parameters(best_);
    return report_;
  }

 private:
  struct StepFacts {
    double loss = 0;
    std::int64_t tokens = 0, target_tokens = 0;
    bool is_stopped = false, minutes_are_over = false;  // of any rank; of rank 0
    std::vector<std::int64_t> example_idxs;
  };

  // A state from before, or a fresh folder.
  void begin() {
    started_ = saved_ = Clock::now();
    std::uint64_t found = 0;
    on_root(comm_, [&] {
      found = has_state(env_, run_.state_folder) ? 1 : 0;
      if (found != 0) load_state();
      or_throw(env_.make_folders(run_.state_folder));
      log_ =
          or_throw(TrainLog::open(env_, log_file(run_.state_folder), found != 0 ? std::optional(step_) : std::nullopt));
    });
    comm_.broadcast(std::as_writable_bytes(std::span(&found, 1)), 0);
    if (found != 0) share_state();
    broadcast_from_root(comm_, trainee_.parameters);
    if (trainee_.after_update && comm_.size() > 1) trainee_.after_update();
    report_.state_folder = run_.state_folder;
    report_.inputs_cut = data_.inputs_cut;
  }

  void load_state() {
    if (!options_.resume) {
      throw Failure({concat(run_.state_folder,
                            " holds the state of an unfinished run; --resume goes on with it, "
                            "--overwrite starts anew")});
    }
    const std::vector<NamedState> moments = optimiser_->state(trainee_.names);
    TrainingState state = or_throw(
        load_training_state(env_, run_.state_folder, {trainee_.names, trainee_.parameters, moments}, run_.identity));
    warn_of_other_sums(state);
    set_parameters(state.parameters);
    for (std::size_t i = 0; i < moments.size(); ++i) copy_into({moments[i].tensor}, {state.optimiser[i].tensor});
    best_ = std::move(state.best);
    go_on_from(state.report);
    log_info(concat("resuming at step ", step_, " of ", options_.steps, " from ", run_.state_folder));
  }

  void warn_of_other_sums(const TrainingState& state) const {
    const bool same_threads = state.num_threads == at::get_num_threads(), same_ranks = state.num_ranks == comm_.size();
    if (same_threads && same_ranks) return;
    const auto words = [](int ranks, int threads) { return concat(ranks, " ranks of ", threads, " threads"); };
    log_warning(concat("this run began with ", words(state.num_ranks, state.num_threads), " and goes on with ",
                       words(comm_.size(), at::get_num_threads()),
                       ": its weights may differ in the last bits from those of an unbroken run"));
  }

  void go_on_from(const TrainReport& report) {
    report_ = report;
    step_ = report.steps;
    seconds_before_ = report.seconds;
    optimiser_->set_updates(step_);
  }

  // What rank 0 has loaded, on the others (parameters aside).
  void share_state() {
    if (comm_.size() == 1) return;
    go_on_from(or_throw(report_from_json(
        or_throw(parse_json(broadcast_text(comm_, report_to_json(report_).dump(), 0), "the state of rank 0")),
        "the state of rank 0")));
    std::vector<at::Tensor> moments;
    for (const NamedState& moment : optimiser_->state(trainee_.names)) moments.push_back(moment.tensor);
    broadcast_from_root(comm_, moments);
    if (report_.best_step < 0 || !run_.keep_best) return;
    if (!is_root(comm_)) best_ = clones(trainee_.parameters);
    broadcast_from_root(comm_, best_);
  }

  // Forward and backward over the step's micro-batches; the gradients lie in the parameters. Nothing if asked to stop.
  std::optional<StepFacts> gradients_of_step() {
    StepFacts facts;
    for (std::int64_t i = 0; i < options_.batch; ++i) {
      const std::int64_t position = step_ * options_.batch + i;
      facts.example_idxs.push_back(task_order_ ? task_order_->at(position) : order_.at(position));
    }
    const auto micro_batch =
        options_.micro_batch == 0 ? options_.batch : std::min(options_.micro_batch, options_.batch);
    StepSize size{options_.batch, (options_.batch + micro_batch - 1) / micro_batch, 0};
    for (const std::int64_t idx : facts.example_idxs) {
      const EncodedExample& example = data_.examples[static_cast<std::size_t>(idx)];
      const auto target = static_cast<std::int64_t>(example.target.size());
      const auto input = static_cast<std::int64_t>(example.input.size());
      const bool encoder_decoder = backbone_.config().is_encoder_decoder();
      size.target_tokens += target;
      size.source_rows += encoder_decoder ? input : 0;
      size.rows += encoder_decoder ? target : input + target - 1;
    }
    facts.target_tokens = size.target_tokens;
    if (trainee_.before_step) trainee_.before_step(size);
    if (!trainee_.layer_of_router.empty()) {
      routers_ = std::make_shared<RouterRecord>(static_cast<int>(trainee_.layer_of_router.size()));
    }
    for (const at::Tensor& parameter : trainee_.parameters) parameter.mutable_grad().reset();

    add_gradients(facts, micro_batch, size);
    return facts.is_stopped ? std::nullopt : std::optional(std::move(facts));
  }

  // This rank's part of them, and what all ranks found.
  void add_gradients(StepFacts& facts, std::int64_t micro_batch, const StepSize& size) {
    if (comm_.size() == 1) return add_own_gradients(facts, micro_batch, size);
    const Status own = attempt([&] { add_own_gradients(facts, micro_batch, size); });
    const double minutes = minutes_are_over() && is_root(comm_) ? 1 : 0;
    double sums[] = {facts.loss, static_cast<double>(facts.tokens), facts.is_stopped ? 1.0 : 0.0, own.ok() ? 0.0 : 1.0,
                     minutes};
    comm_.all_reduce_sum(std::span<double>(sums));
    if (sums[3] > 0) or_throw(agree(comm_, own));
    facts.loss = sums[0];
    facts.tokens = static_cast<std::int64_t>(sums[1]);
    facts.is_stopped = sums[2] > 0;
    facts.minutes_are_over = sums[4] > 0;
    if (!facts.is_stopped && routing_is_logged()) sum_routing();
  }

  void add_own_gradients(StepFacts& facts, std::int64_t micro_batch, const StepSize& size) {
    const at::AutoGradMode record(true);
    const std::span<const std::int64_t> all(facts.example_idxs);
    for (std::int64_t begin = 0; begin < options_.batch; begin += micro_batch) {
      if (run_.stop()) {
        facts.is_stopped = true;
        return;
      }
      const auto whole = all.subspan(static_cast<std::size_t>(begin),
                                     static_cast<std::size_t>(std::min(micro_batch, options_.batch - begin)));
      const Share share = share_of(comm_, static_cast<std::int64_t>(whole.size()));
      if (share.count == 0) continue;
      const TargetBatch batch = make_target_batch(
          data_, whole.subspan(static_cast<std::size_t>(share.first), static_cast<std::size_t>(share.count)),
          backbone_);
      const at::Tensor weights = weights_of(whole, share, size).to(batch.rows.device());
      const auto record = routing_is_logged() ? routers_ : nullptr;
      const at::Tensor hidden = target_hidden(backbone_, batch, trainee_.filler, record);  // (n, D)
      const TargetLoss loss = target_loss(backbone_, hidden, batch.targets, weights);
      facts.loss += (loss.row_losses.to(at::kDouble) * weights).sum().item<double>();
      facts.tokens += batch.num_tokens;
      if (!std::isfinite(facts.loss)) return;  // the step fails; its gradients are of no use
      hidden.backward(loss.hidden_gradient);
      if (trainee_.after_backward) trainee_.after_backward();
    }
    facts.minutes_are_over = minutes_are_over();
  }

  // Of the target rows of this rank's share of a micro-batch: they are weighed as in the whole.
  at::Tensor weights_of(std::span<const std::int64_t> whole, const Share& share, const StepSize& size) const {
    std::vector<std::int64_t> lengths;
    std::int64_t before = 0, rows = 0;
    for (std::size_t i = 0; i < whole.size(); ++i) {
      lengths.push_back(static_cast<std::int64_t>(data_.examples[static_cast<std::size_t>(whole[i])].target.size()));
      const auto at = static_cast<std::int64_t>(i);
      if (at < share.first) before += lengths.back();
      if (at >= share.first && at < share.first + share.count) rows += lengths.back();
    }
    return row_weights(lengths, options_.loss_mean, size).narrow(0, before, rows);
  }

  void update(const StepFacts& facts) {
    if (!std::isfinite(facts.loss) || has_exploded(facts.loss)) fail(facts, "a loss of", facts.loss);
    std::vector<at::Tensor> gradients;
    for (const at::Tensor& parameter : trainee_.parameters) {
      // A slot that no token of this step passed has no gradient.
      gradients.push_back(parameter.grad().defined() ? parameter.grad() : at::zeros_like(parameter));
    }
    sum_over_ranks(comm_, gradients);
    const double norm = clip_by_global_norm(gradients, options_.clip_norm);
    if (!std::isfinite(norm)) fail(facts, "a gradient norm of", norm);
    const double rate = learning_rate_at(options_, step_);
    optimiser_->step(gradients, rate);
    if (trainee_.after_update) trainee_.after_update();

    const bool logs_routing = routing_is_logged();
    if (step_ == 0) report_.first_loss = facts.loss;
    report_.last_loss = facts.loss;
    report_.steps = ++step_;
    report_.tokens += facts.tokens;
    report_.target_tokens += facts.target_tokens;
    report_.seconds = seconds();
    Json line;
    line["step"] = step_;
    line["loss"] = facts.loss;
    line["lr"] = rate;
    line["grad_norm"] = norm;
    line["tokens"] = facts.tokens;
    line["target_tokens"] = facts.target_tokens;
    line["seconds"] = report_.seconds;
    if (logs_routing) add_routing(line);
    on_root(comm_, [&] { or_throw(log_->append(line)); });
  }

  // Some two hundred times in a run, the first and the last step included.
  bool routing_is_logged() const {
    const std::int64_t every = std::max<std::int64_t>(1, options_.steps / 200);
    return routers_ != nullptr && (step_ % every == 0 || step_ + 1 == options_.steps);
  }

  // The ranks' records become one.
  void sum_routing() {
    const std::int64_t experts = trainee_.num_experts;
    std::vector<double> sums;
    for (const RouterRecord::Router& router : routers_->routers) {
      sums.insert(sums.end(), {router.entropy, static_cast<double>(router.num_rows)});
      for (std::int64_t e = 0; e < experts; ++e) {
        sums.push_back(router.load.defined() ? router.load.const_data_ptr<double>()[e] : 0);
      }
    }
    sums.insert(sums.end(), {routers_->losses.balance, routers_->losses.z_loss});
    comm_.all_reduce_sum(std::span<double>(sums));
    const double* next = sums.data();
    for (RouterRecord::Router& router : routers_->routers) {
      router.entropy = *next++;
      router.num_rows = static_cast<std::int64_t>(*next++);
      router.load = at::from_blob(const_cast<double*>(next), {experts}, at::kDouble).clone();
      next += experts;
    }
    routers_->losses = {next[0], next[1]};
  }

  // Load and entropy by layer, a mean over its routers; entropy as a share of the largest possible.
  void add_routing(Json& line) const {
    std::vector<at::Tensor> loads(trainee_.layers.size());
    std::vector<double> entropies(trainee_.layers.size()), counts(trainee_.layers.size());
    for (std::size_t i = 0; i < routers_->routers.size(); ++i) {
      const RouterRecord::Router& router = routers_->routers[i];
      if (router.num_rows == 0) continue;
      const int layer = trainee_.layer_of_router[i];
      const auto rows = static_cast<double>(router.num_rows);
      const at::Tensor load = router.load / rows;
      loads[layer] = loads[layer].defined() ? loads[layer] + load : load;
      entropies[layer] += router.entropy / rows / std::log(static_cast<double>(load.numel()));
      counts[layer] += 1;
    }
    Json load_json = Json::object(), entropy_json = Json::object();
    for (std::size_t layer = 0; layer < loads.size(); ++layer) {
      if (counts[layer] == 0) continue;
      std::vector<double> shares;
      const at::Tensor mean = (loads[layer] / counts[layer]).contiguous();
      for (std::int64_t e = 0; e < mean.numel(); ++e) {
        shares.push_back(std::round(mean.data_ptr<double>()[e] * 1e5) / 1e5);
      }
      load_json[trainee_.layers[layer]] = shares;
      entropy_json[trainee_.layers[layer]] = std::round(entropies[layer] / counts[layer] * 1e5) / 1e5;
    }
    line["expert_load"] = load_json;
    line["router_entropy"] = entropy_json;
    if (options_.balance_weight > 0) line["balance"] = routers_->losses.balance;
    if (options_.z_loss_weight > 0) line["z_loss"] = routers_->losses.z_loss;
  }

  bool minutes_are_over() const {
    const double minutes = std::chrono::duration<double>(Clock::now() - saved_).count() / 60;
    return options_.save_minutes > 0 && minutes >= options_.save_minutes;
  }
  bool save_is_due(const StepFacts& facts) const {
    return facts.minutes_are_over || (options_.save_every > 0 && step_ % options_.save_every == 0);
  }

  void set_parameters(const std::vector<at::Tensor>& values) {
    copy_into(trainee_.parameters, values);
    if (trainee_.after_update) trainee_.after_update();
  }

  // Twice in a row worse than the first step by more than a uniform guess costs: no batch of hard examples does that.
  bool has_exploded(double loss) const {
    const double worst = report_.first_loss + std::log(static_cast<double>(backbone_.config().vocabulary_size));
    return step_ >= 2 && loss > worst && report_.last_loss > worst;
  }

  bool validation_is_due() const {
    if (step_ == options_.steps) return !valid_.examples.empty();
    return run_.keep_best && step_ % options_.valid_every == 0;
  }

  void validate() {
    if (valid_.examples.empty()) return;
    const auto batch = options_.micro_batch == 0 ? options_.batch : options_.micro_batch;
    const double loss = validation_loss(batch);
    report_.seconds = seconds();
    Json line;
    line["step"] = step_;
    line["valid_loss"] = loss;
    line["seconds"] = report_.seconds;
    on_root(comm_, [&] { or_throw(log_->append(line)); });
    if (run_.keep_best && report_.best_step >= 0 && !(loss <= report_.best_valid_loss)) return;  // ties: the newer
    report_.best_step = step_;
    report_.best_valid_loss = loss;
    if (run_.keep_best) best_ = clones(trainee_.parameters);
  }

  // Each rank its batches of the validation examples.
  double validation_loss(std::int64_t batch) {
    TokenLosses losses;
    together(comm_,
             [&] { losses = token_losses(backbone_, trainee_.filler, valid_, batch, comm_.rank(), comm_.size()); });
    double sums[] = {losses.sum, static_cast<double>(losses.count)};
    comm_.all_reduce_sum(std::span<double>(sums));
    return sums[0] / sums[1];
  }

  void save() {
    report_.seconds = seconds();
    on_root(comm_, [&] {
      or_throw(log_->sync());  // the log never lacks a line that the state knows of
      const TrainingState state{
          at::get_num_threads(), comm_.size(), report_, trainee_.parameters, optimiser_->state(trainee_.names), best_};
      or_throw(save_training_state(env_, run_.state_folder, state, trainee_.names, run_.identity, options_.keep));
    });
    saved_ = Clock::now();
  }

  TrainReport stop_early() {
    save();
    report_.interrupted = true;
    return report_;
  }

  // The parameters are still those before the step: worth keeping.
  [[noreturn]] void fail(const StepFacts& facts, std::string_view what, double value) {
    save();
    constexpr std::size_t kNamed = 8;
    std::string ids;
    for (std::size_t i = 0; i < std::min(kNamed, facts.example_idxs.size()); ++i) {
      const std::string& id = data_.ids[static_cast<std::size_t>(facts.example_idxs[i])];
      ids += concat(i == 0 ? "" : ", ", printable(id, 60));
    }
    if (facts.example_idxs.size() > kNamed) ids += concat(" and ", facts.example_idxs.size() - kNamed, " more");
    throw Failure(
        {concat("step ", step_ + 1, " of ", options_.steps, " gave ", what, " ",
                std::isnan(value) ? "NaN" : concat(value), " on examples ", ids, "; the weights before it are kept in ",
                run_.state_folder, "; likely a learning rate that is too high (now ", learning_rate_at(options_, step_),
                ") or a damaged model or data file")});
  }

  std::string note(double loss) const {
    char text[64];
    std::snprintf(text, sizeof text, report_.best_step < 0 ? "loss %.4f" : "loss %.4f, valid %.4f", loss,
                  report_.best_valid_loss);
    return text;
  }

  double seconds() const { return seconds_before_ + std::chrono::duration<double>(Clock::now() - started_).count(); }

  using Clock = std::chrono::steady_clock;
  Env& env_;
  const Backbone& backbone_;
  const Trainee& trainee_;
  const TrainData& data_;
  const TrainData& valid_;
  const TrainRun& run_;
  const TrainOptions& options_;
  const std::unique_ptr<Comm> alone_ = make_single_comm();
  Comm& comm_;
  std::unique_ptr<Optimiser> optimiser_;
  DataOrder order_;
  std::optional<TaskOrder> task_order_;    // by task rates, instead
  std::shared_ptr<RouterRecord> routers_;  // of the step at hand
  std::unique_ptr<TrainLog> log_;
  std::int64_t step_ = 0;  // steps done
  std::vector<at::Tensor> best_;
  TrainReport report_;
  Clock::time_point started_, saved_;
  double seconds_before_ = 0;  // of the runs this one resumes
};

}  // namespace

TrainReport run_training(Env& env, const Backbone& backbone, const Trainee& trainee, const TrainData& data,
                         const TrainData& valid, const TrainRun& run, const TrainOptions& options) {
  or_throw(check_train_options(options));
  SKEIN_CHECK(!data.examples.empty() && trainee.parameters.size() == trainee.names.size());
  return Loop(env, backbone, trainee, data, valid, run, options).train();
}

double mean_token_loss(const Backbone& backbone, const SlotFiller* filler, const TrainData& data,
                       std::int64_t batch_size) {
  const TokenLosses losses = token_losses(backbone, filler, data, batch_size, 0, 1);
  return losses.sum / static_cast<double>(losses.count);
}

}  // namespace skein
