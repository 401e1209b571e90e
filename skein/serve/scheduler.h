// Steps of a batch: which rows the next pass over the model has, and what becomes of them.
//
// A step has one row for every sequence that writes, and up to prefill_tokens rows that read prompts, so that answers
// go on while prompts are read.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "skein/serve/pass.h"
#include "skein/serve/prefix_cache.h"
#include "skein/serve/sequence.h"

namespace skein {

// Keys and values lie in pages of one bounded pool, which counts those of an encoder-decoder's sources too. Where it is
// full, prefixes that nobody reads are dropped first, then the youngest sequence is paused: its pages go, and it is
// computed again, to the same bits, when there is room.
//
// Used by one thread, but for most_tokens(). backbone, tokenizer and options are borrowed.
class Scheduler {
 public:
  Scheduler(const Backbone& backbone, const Tokenizer& tokenizer, const EngineOptions& options);

  // What a stream may hold: the base's positions, or what is left of the whole pool by an encoder-decoder's source of
  // so many tokens. At most 0: the source does not fit.
  std::int64_t most_tokens(std::int64_t source_tokens = 0) const;

  bool idle() const { return running_.empty() && paused_.empty(); }
  bool has_room_for(const Sequence& sequence) const;
  void admit(std::unique_ptr<Sequence> sequence);
  bool cancel(RequestId id);  // false: it is not here
  void cancel_all();
  // One pass. A failure ends the sequences it concerns, never the scheduler.
  void step();
  // Adds what this knows to the engine's.
  void add_to(EngineStats& stats) const;

 private:
  std::int64_t pages_to_come(const Sequence& sequence) const;  // up to its next token, beyond what it holds
  std::int64_t free_pages() const;                             // those that can be had without pausing anybody
  void resume();
  void reuse_prefix(Sequence& sequence);
  bool awaits_twin(const Sequence& sequence) const;
  PassRows choose_rows();
  void make_room(PassRows& rows);
  bool reserve(Sequence& sequence, std::int64_t num_tokens);
  void pause_youngest();
  void finish_rows(const PassRows& rows, const PassResult& result);
  void write_tokens(const std::vector<Sequence*>& writers, const at::Tensor& hidden);
  void tell(const RowsOfSequence& rows, const PassResult& result, std::size_t i) const;
  void drop_finished();

  const Backbone& backbone_;
  const EngineOptions& options_;
  std::vector<TokenId> end_tokens_;
  std::shared_ptr<KvPool> pool_;
  PrefixCache prefixes_;
  std::vector<std::unique_ptr<Sequence>> running_;  // oldest first
  std::deque<std::unique_ptr<Sequence>> paused_;    // oldest first
  EngineStats counts_;
  std::int64_t kept_pages_ = 0;
};

}  // namespace skein
