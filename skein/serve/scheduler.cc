#include "skein/serve/scheduler.h"

#include <algorithm>
#include <exception>
#include <span>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "skein/base/concat.h"
#include "skein/serve/logit_rows.h"

namespace skein {
namespace {

constexpr std::int64_t kPageTokens = 16;
constexpr std::int64_t kMostContext = 8192;          // that the default size of the cache reckons with
constexpr std::int64_t kSourceAndAnswer = 2048;      // the same, of an encoder-decoder
constexpr std::int64_t kMostCacheBytes = 2LL << 30;  // by default
constexpr std::int64_t kLeastPiece = 4;              // rows of a prompt read at once, so that none is left with one row
constexpr std::int64_t kMostScoredRows = 64;         // logits of more prompt rows than that are not held at once

std::int64_t pages_for(std::int64_t num_tokens) { return (num_tokens + kPageTokens - 1) / kPageTokens; }

// Of an encoder-decoder's cross-attention, which takes as much for a token as a stream does.
std::int64_t source_pages(const Backbone& backbone, std::int64_t source_tokens) {
  return backbone.config().is_encoder_decoder() ? pages_for(source_tokens) : 0;
}

std::int64_t source_pages(const Backbone& backbone, const Sequence& sequence) {
  return source_pages(backbone, static_cast<std::int64_t>(sequence.request().prompt.size()));
}

// Rows in the order of their models: those of one model side by side.
void sort_by_model(PassRows& rows) {
  std::stable_sort(rows.begin(), rows.end(), [](const RowsOfSequence& a, const RowsOfSequence& b) {
    return a.sequence->served().identity < b.sequence->served().identity;
  });
}

// How many of a prompt's rows to read now, with room for `budget`: never one of several, as one row is computed by
// another kernel than many (nn/attention.h) and a prompt's result would depend on where it was cut. 0: wait.
std::int64_t piece_length(const Sequence& sequence, std::int64_t budget, bool is_first) {
  const std::int64_t rest = sequence.num_prompt_tokens() - sequence.num_cached();
  if (sequence.served().reads_whole_prompt) return is_first || rest <= budget ? rest : 0;
  const bool scores = sequence.request().score_prompt || sequence.request().trace;
  std::int64_t count = std::min(rest, scores ? std::min(budget, kMostScoredRows) : budget);
  if (rest - count == 1) --count;
  return count < rest && count < kLeastPiece ? 0 : count;
}

// Adds a sequence's new rows to the sum its embedding is made of.
void add_to_embedding(Sequence& sequence, const at::Tensor& rows) {
  const at::Tensor sum = rows.to(at::kCPU, at::kDouble).sum(0);  // (D)
  sequence.embedding_sum.resize(static_cast<std::size_t>(sum.size(0)));
  for (std::int64_t d = 0; d < sum.size(0); ++d) {
    sequence.embedding_sum[static_cast<std::size_t>(d)] += sum.const_data_ptr<double>()[d];
  }
}

}  // namespace

Scheduler::Scheduler(const Backbone& backbone, const Tokenizer& tokenizer, const EngineOptions& options)
    : backbone_(backbone), options_(options), prefixes_(kPageTokens) {
  const BackboneConfig& config = backbone.config();
  for (const std::int64_t token : config.eos_tokens) end_tokens_.push_back(static_cast<TokenId>(token));
  const std::vector<TokenId>& ends = tokenizer.special().end_of_generation;
  end_tokens_.insert(end_tokens_.end(), ends.begin(), ends.end());
  const auto tensors = at::TensorOptions().dtype(backbone.compute().dtype).device(backbone.compute().device);
  const std::int64_t page_bytes = kPageTokens * KvPool::bytes_per_token(config, tensors);
  const std::int64_t context =
      config.is_encoder_decoder() ? kSourceAndAnswer : std::min(config.max_positions, kMostContext);
  std::int64_t pages = options.cache_bytes / page_bytes;
  if (options.cache_bytes == 0) {
    pages = std::min(options.max_running * pages_for(context) / 2, kMostCacheBytes / page_bytes);
    pages = std::max(pages, pages_for(context) + 1);
  }
  pool_ = std::make_shared<KvPool>(config, tensors, kPageTokens, std::max<std::int64_t>(pages, 1));
}

std::int64_t Scheduler::most_tokens(std::int64_t source_tokens) const {
  const std::int64_t fits = (pool_->most_pages() - source_pages(backbone_, source_tokens)) * kPageTokens;
  return backbone_.config().is_encoder_decoder() ? fits : std::min(fits, backbone_.config().max_positions);
}

std::int64_t Scheduler::pages_to_come(const Sequence& sequence) const {
  std::int64_t pages =
      pages_for(static_cast<std::int64_t>(sequence.tokens().size()) + 1) + source_pages(backbone_, sequence);
  if (sequence.cache == nullptr) return pages;
  pages -= pages_for(sequence.num_cached());
  return sequence.cache->cross_room == nullptr ? pages : pages - source_pages(backbone_, sequence);
}

std::int64_t Scheduler::free_pages() const { return pool_->most_pages() - pool_->num_used() + prefixes_.num_idle(); }

bool Scheduler::has_room_for(const Sequence& sequence) const {
  if (running_.empty() && paused_.empty()) return true;
  if (!paused_.empty() || static_cast<int>(running_.size()) >= options_.max_running) return false;
  std::int64_t wanted = pages_to_come(sequence);
  for (const auto& other : running_) wanted += pages_to_come(*other);
  return wanted <= free_pages();
}

void Scheduler::admit(std::unique_ptr<Sequence> sequence) {
  sequence->cache = std::make_unique<KvSequence>(pool_);
  running_.push_back(std::move(sequence));
}

// Paused sequences in their order, while there is room for what they held.
void Scheduler::resume() {
  while (!paused_.empty() && static_cast<int>(running_.size()) < options_.max_running) {
    if (!running_.empty() && pages_to_come(*paused_.front()) > free_pages()) return;
    admit(std::move(paused_.front()));
    paused_.pop_front();
  }
}

bool Scheduler::cancel(RequestId id) {
  const auto is_meant = [&](const std::unique_ptr<Sequence>& sequence) { return sequence->id() == id; };
  const auto running = std::find_if(running_.begin(), running_.end(), is_meant);
  const auto paused = std::find_if(paused_.begin(), paused_.end(), is_meant);
  if (running == running_.end() && paused == paused_.end()) return false;
  (running != running_.end() ? *running : *paused)->finish(Finish::Reason::kCancelled);
  drop_finished();
  return true;
}

void Scheduler::cancel_all() {
  for (const auto& sequence : running_) sequence->finish(Finish::Reason::kCancelled);
  for (const auto& sequence : paused_) sequence->finish(Finish::Reason::kCancelled);
  drop_finished();
}

// Takes over the pages of the prompt that are there, all but its last two tokens: the last is computed in any case, and
// not alone (piece_length).
void Scheduler::reuse_prefix(Sequence& sequence) {
  if (!options_.reuses_prefixes || !sequence.shares_prefix() || sequence.num_prompt_tokens() <= 2) return;
  const std::span<const TokenId> prompt(sequence.tokens().data(),
                                        static_cast<std::size_t>(sequence.num_prompt_tokens() - 2));
  const auto pages = prefixes_.find(sequence.prefix_owner(), prompt);
  if (pages.empty()) return;
  sequence.cache->adopt(pages);
  sequence.reused_tokens = sequence.num_cached();
  counts_.reused_tokens += sequence.num_cached();
}

// An older sequence is about to compute a page that this one, which has not begun, would compute too.
bool Scheduler::awaits_twin(const Sequence& sequence) const {
  if (!options_.reuses_prefixes || !sequence.shares_prefix()) return false;
  for (const auto& other : running_) {
    if (other.get() == &sequence) return false;
    if (!other->is_reading() || !other->shares_prefix() || other->prefix_owner() != sequence.prefix_owner()) continue;
    const std::vector<TokenId>&a = sequence.tokens(), &b = other->tokens();
    const auto most =
        static_cast<std::ptrdiff_t>(std::min(sequence.num_prompt_tokens() - 2, other->num_prompt_tokens()));
    const auto same =
        std::mismatch(a.begin(), a.begin() + std::max<std::ptrdiff_t>(most, 0), b.begin()).first - a.begin();
    if (same / kPageTokens * kPageTokens > other->num_cached()) return true;
  }
  return false;
}

PassRows Scheduler::choose_rows() {
  PassRows rows;
  std::int64_t budget = std::max(options_.prefill_tokens, 2 * kLeastPiece);
  const std::int64_t whole_budget = budget;
  for (const auto& sequence : running_) {
    if (sequence->is_writing()) rows.push_back({sequence.get(), sequence->num_cached(), 1});
  }
  for (const auto& sequence : running_) {
    if (sequence->is_writing()) continue;
    if (budget < kLeastPiece) break;
    const bool is_first = budget == whole_budget;
    std::int64_t count = 0;
    if (!sequence->is_reading()) {  // what was written before a pause
      count = std::min(static_cast<std::int64_t>(sequence->tokens().size()) - sequence->num_cached(), budget);
      budget -= count;
    } else if (backbone_.config().is_encoder_decoder()) {
      const auto length = static_cast<std::int64_t>(sequence->request().prompt.size());
      if (!is_first && length > budget) continue;
      count = 1;
      budget -= length;
    } else {
      if (sequence->num_cached() == 0) {
        if (awaits_twin(*sequence)) continue;
        reuse_prefix(*sequence);
      }
      count = piece_length(*sequence, budget, is_first);
      budget -= count;
    }
    if (count > 0) rows.push_back({sequence.get(), sequence->num_cached(), count});
  }
  make_room(rows);
  sort_by_model(rows);
  return rows;
}

bool Scheduler::reserve(Sequence& sequence, std::int64_t num_tokens) {
  KvSequence& cache = *sequence.cache;
  if (const std::int64_t source = source_pages(backbone_, sequence); source > 0 && cache.cross_room == nullptr) {
    cache.cross_room = pool_->set_aside(source);
    if (cache.cross_room == nullptr) return false;  // no prefixes are kept of such a model
  }
  while (!cache.reserve(num_tokens)) {
    if (!prefixes_.evict()) return false;
  }
  return true;
}

// Pages for all rows; where there are none left, the youngest sequence and its rows wait.
void Scheduler::make_room(PassRows& rows) {
  for (std::size_t i = 0; i < rows.size(); ++i) {
    while (i < rows.size() && !reserve(*rows[i].sequence, rows[i].begin + rows[i].count)) {
      Sequence* youngest = running_.back().get();
      std::erase_if(rows, [&](const RowsOfSequence& of) { return of.sequence == youngest; });
      pause_youngest();
      i = 0;  // rows before this one have their pages; asking again costs nothing
    }
  }
}

void Scheduler::pause_youngest() {
  Sequence& sequence = *running_.back();
  sequence.cache.reset();
  sequence.embedding_sum.clear();
  paused_.push_front(std::move(running_.back()));
  running_.pop_back();
  ++counts_.preempted;
}

void Scheduler::step() {
  resume();
  const PassRows rows = choose_rows();
  if (rows.empty()) return;
  ++counts_.steps;
  try {
    finish_rows(rows, run_pass(backbone_, rows));
  } catch (const std::exception& failure) {
    for (const RowsOfSequence& of : rows) of.sequence->fail(failure.what());
  }
  drop_finished();
  if (idle() || counts_.steps % 16 == 0) kept_pages_ = prefixes_.num_idle();  // counted, so not at every step
}

void Scheduler::tell(const RowsOfSequence& rows, const PassResult& result, std::size_t i) const {
  Sequence& sequence = *rows.sequence;
  const Request& request = sequence.request();
  const PassResult::Traced& traced = result.traced[i];
  const std::vector<TokenId>& tokens = sequence.tokens();
  std::vector<PromptToken> told;
  if (traced.trace && result.first_source_row[i] >= 0 && sequence.told == 0) {
    for (std::size_t s = 0; s < request.prompt.size(); ++s) {
      told.push_back({.position = static_cast<std::int64_t>(s), .token = request.prompt[s], .in_source = true});
      told.back().trace = traced.trace->of_row(traced.first_source_row + static_cast<std::int64_t>(s), true);
    }
  }
  const bool scores = request.score_prompt && rows.begin < sequence.num_prompt_tokens();
  std::optional<LogitRows> logits;
  if (scores) logits.emplace(backbone_.logits(result.hidden.narrow(0, result.first_row[i], rows.count)));
  std::vector<float> scratch;
  for (std::int64_t row = 0; row < rows.count; ++row) {
    const std::int64_t position = rows.begin + row;
    std::optional<TokenLogprobs> logprobs = std::exchange(sequence.next_logprobs, std::nullopt);
    if (scores && position + 1 < sequence.num_prompt_tokens()) {
      sequence.next_logprobs = logprobs_of(logits->row(row, scratch), tokens[static_cast<std::size_t>(position) + 1],
                                           std::max(0, request.num_logprobs));
    }
    if (position < sequence.told) continue;  // computed again after a pause
    std::optional<TokenTrace> trace;
    if (traced.trace) trace = traced.trace->of_row(traced.first_row + row, false);
    if (position < sequence.num_prompt_tokens()) {
      if (!request.score_prompt && !trace) continue;  // the base alone chooses nothing
      told.push_back({.position = position,
                      .token = tokens[static_cast<std::size_t>(position)],
                      .logprobs = std::move(logprobs),
                      .trace = std::move(trace)});
    } else if (trace) {
      sequence.sink().on_trace(std::move(*trace));
    }
  }
  if (!told.empty()) sequence.sink().on_prompt_tokens(std::move(told));
  sequence.told = std::max(sequence.told, rows.begin + rows.count);
}

void Scheduler::finish_rows(const PassRows& rows, const PassResult& result) {
  std::vector<Sequence*> writers;
  std::vector<std::int64_t> last_rows;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    Sequence& sequence = *rows[i].sequence;
    const Request& request = sequence.request();
    const bool reads = rows[i].begin < sequence.num_prompt_tokens();
    const bool begins = rows[i].begin == 0 && result.first_source_row[i] >= 0;
    if (reads) counts_.prompt_tokens += begins ? static_cast<std::int64_t>(request.prompt.size()) : rows[i].count;
    if (request.trace || request.score_prompt) tell(rows[i], result, i);
    if (request.task == Request::Task::kEmbed) {
      add_to_embedding(sequence, begins ? result.source_hidden.narrow(0, result.first_source_row[i],
                                                                      static_cast<std::int64_t>(request.prompt.size()))
                                        : result.hidden.narrow(0, result.first_row[i], rows[i].count));
    }
    if (options_.reuses_prefixes && reads && !begins && sequence.shares_prefix()) {
      const auto count = static_cast<std::size_t>(std::min(sequence.num_cached(), sequence.num_prompt_tokens()));
      prefixes_.insert(sequence.prefix_owner(), std::span(sequence.tokens()).first(count), sequence.cache->pages());
    }
    if (sequence.num_cached() < static_cast<std::int64_t>(sequence.tokens().size())) continue;
    if (sequence.num_generated() >= sequence.max_new_tokens()) {  // embeddings, scores of prompts
      sequence.finish(Finish::Reason::kLength);
      continue;
    }
    writers.push_back(&sequence);
    last_rows.push_back(result.first_row[i] + rows[i].count - 1);
  }
  if (writers.empty()) return;
  const bool takes_all = static_cast<std::int64_t>(last_rows.size()) == result.hidden.size(0);
  write_tokens(writers, takes_all ? result.hidden
                                  : result.hidden.index_select(0, at::tensor(last_rows).to(result.hidden.device())));
}

// hidden (n, D): of each writer's last token.
void Scheduler::write_tokens(const std::vector<Sequence*>& writers, const at::Tensor& hidden) {
  const LogitRows logits(backbone_.logits(hidden));
  std::vector<Sequence::Picked> picked(writers.size());
  std::vector<std::string> failures(writers.size());
  at::parallel_for(0, static_cast<std::int64_t>(writers.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> scratch;
    for (std::int64_t i = begin; i < end; ++i) {
      const auto at = static_cast<std::size_t>(i);
      try {
        picked[at] = writers[at]->pick(logits.row(i, scratch));
      } catch (const Failure& failure) {
        failures[at] = failure.what();
      }
    }
  });
  for (std::size_t i = 0; i < writers.size(); ++i) {
    if (!failures[i].empty()) {
      writers[i]->fail(failures[i]);
      continue;
    }
    const std::int64_t before = writers[i]->num_generated();
    writers[i]->take(std::move(picked[i]), end_tokens_);
    counts_.generated_tokens += writers[i]->num_generated() - before;
  }
}

void Scheduler::drop_finished() {
  const auto is_over = [&](const std::unique_ptr<Sequence>& sequence) {
    if (!sequence->done()) return false;
    ++(sequence->reason() == Finish::Reason::kCancelled ? counts_.cancelled
       : sequence->reason() == Finish::Reason::kFailed  ? counts_.failed
                                                        : counts_.finished);
    return true;
  };
  std::erase_if(running_, is_over);
  std::erase_if(paused_, is_over);
}

void Scheduler::add_to(EngineStats& stats) const {
  stats.running += static_cast<std::int64_t>(running_.size() + paused_.size());
  stats.pages_total = pool_->most_pages();
  stats.pages_kept = kept_pages_;
  stats.pages_used = std::max<std::int64_t>(0, pool_->num_used() - stats.pages_kept);
  for (const auto member :
       {&EngineStats::steps, &EngineStats::prompt_tokens, &EngineStats::generated_tokens, &EngineStats::reused_tokens,
        &EngineStats::finished, &EngineStats::cancelled, &EngineStats::failed, &EngineStats::preempted}) {
    stats.*member += counts_.*member;
  }
}

}  // namespace skein
