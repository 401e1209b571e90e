// Keys and values of earlier tokens, for decoding, in pages that sequences take from a pool and may share (the paged
// attention of arXiv 2309.06180).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/nn/forward_state.h"
#include "skein/spec/backbone_config.h"

namespace skein {

struct KvPage {
  at::Tensor k, v;  // (L, page size, Hkv, Dh) each
};

// Not thread-safe. Pages may outlive their pool.
class KvPool {
 public:
  // page_size is rounded up to a multiple of 16 tokens. most_pages: 0 for no bound.
  KvPool(const BackboneConfig& config, const at::TensorOptions& options, std::int64_t page_size,
         std::int64_t most_pages = 0);
  // Null if most_pages are in use. A page comes back when its last owner lets go of it.
  std::shared_ptr<const KvPage> take();
  // Counts memory of another kind as so many pages, for as long as the answer lives. Null if there are not that many.
  std::shared_ptr<const void> set_aside(std::int64_t num_pages);
  std::int64_t page_size() const { return page_size_; }
  std::int64_t most_pages() const { return most_pages_; }
  std::int64_t num_used() const;
  std::int64_t num_layers() const { return num_layers_; }
  static std::int64_t bytes_per_token(const BackboneConfig& config, const at::TensorOptions& options);

 private:
  struct Store;  // of the pages: those that came back, how many are out

  std::int64_t page_size_, most_pages_, num_layers_, kv_heads_, d_head_;
  at::TensorOptions options_;
  std::shared_ptr<Store> store_;
};

// Of one sequence.
class KvSequence {
 public:
  explicit KvSequence(std::shared_ptr<KvPool> pool) : pool_(std::move(pool)) {}
  // With pages of its own: the first has room for `capacity` tokens.
  KvSequence(const BackboneConfig& config, const at::TensorOptions& options, std::int64_t capacity);

  std::int64_t length() const { return length_; }  // tokens stored in every layer
  // Makes room for num_tokens in all. false: the pool has no page left; what it had is kept.
  bool reserve(std::int64_t num_tokens);
  // Stores rows [begin, begin + count) of k, v (N, Hkv, Dh) of the layer after the tokens there are. Throws Failure
  // where the pool is empty: a pool with a bound wants reserve() first.
  void append(int layer, const at::Tensor& k, const at::Tensor& v, std::int64_t begin, std::int64_t count);
  void advance(std::int64_t num_tokens);  // after the last layer

  // Where the kernels find them: of each page the first element of its keys (or values); those of a layer begin
  // layer_offset() elements further on, tokens in order.
  const std::vector<const void*>& k_pages() const { return k_pages_; }
  const std::vector<const void*>& v_pages() const { return v_pages_; }
  std::int64_t page_size() const { return pool_->page_size(); }
  std::int64_t layer_offset(int layer) const;
  // Of the first `length` tokens, as one tensor (length, Hkv, Dh) each: a view where one page holds them, else a copy.
  std::pair<at::Tensor, at::Tensor> gather(int layer, std::int64_t length) const;

  // Pages in order. Full ones may be given to other sequences, which never write them.
  const std::vector<std::shared_ptr<const KvPage>>& pages() const { return pages_; }
  // Begins with full pages of another sequence's. Requires length() == 0.
  void adopt(const std::vector<std::shared_ptr<const KvPage>>& pages);

  // Encoder-decoder: keys and values of the source (S, H, Dh), computed once per layer.
  struct Cross {
    at::Tensor k, v;
  };
  std::vector<Cross> cross;                // empty until the first pass
  std::shared_ptr<const void> cross_room;  // what the pool counts for it; null: it is not counted
  at::Tensor sentence;  // (D): the prompt's, kept for later tokens (SequenceRows); undefined: not asked

  std::shared_ptr<SlotMemory> slot_memory;  // what the filler remembers of this sequence

 private:
  void add(std::shared_ptr<const KvPage> page);

  std::shared_ptr<KvPool> pool_;
  std::vector<std::shared_ptr<const KvPage>> pages_;
  std::vector<const void*> k_pages_, v_pages_;
  std::int64_t length_ = 0;
};

}  // namespace skein
