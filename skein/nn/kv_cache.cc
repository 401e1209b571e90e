#include "skein/nn/kv_cache.h"

#include <algorithm>
#include <cstring>

#include <ATen/ATen.h>

#include "skein/base/check.h"
#include "skein/base/result.h"

namespace skein {
namespace {

constexpr std::int64_t kPageMultiple = 16;

std::int64_t num_cached_layers(const BackboneConfig& config) {
  return config.is_encoder_decoder() ? config.num_decoder_layers : config.num_layers;
}

// Rows [begin, begin + count) of x (N, Hkv, Dh) to place `at` of a layer of a page (L, size, Hkv, Dh).
void store(const at::Tensor& x, std::int64_t begin, std::int64_t count, const at::Tensor& page, int layer,
           std::int64_t at) {
  if (!x.is_cpu() || x.scalar_type() != page.scalar_type() || x.stride(1) != x.size(2)) {
    page[layer].narrow(0, at, count).copy_(x.narrow(0, begin, count));
    return;
  }
  // Plain copies: a tensor operation for every sequence and layer would cost more than a small model's step.
  const std::int64_t element = x.element_size(), bytes = page.stride(1) * element, stride = x.stride(0) * element;
  auto* to = static_cast<char*>(page.mutable_data_ptr()) + layer * page.stride(0) * element + at * bytes;
  const auto* from = static_cast<const char*>(x.const_data_ptr()) + begin * stride;
  for (std::int64_t row = 0; row < count; ++row) std::memcpy(to + row * bytes, from + row * stride, bytes);
}

}  // namespace

struct KvPool::Store {
  std::vector<std::unique_ptr<KvPage>> free;
  std::int64_t num_used = 0;
};

KvPool::KvPool(const BackboneConfig& config, const at::TensorOptions& options, std::int64_t page_size,
               std::int64_t most_pages)
    : page_size_((std::max<std::int64_t>(page_size, 1) + kPageMultiple - 1) / kPageMultiple * kPageMultiple),
      most_pages_(most_pages),
      num_layers_(num_cached_layers(config)),
      kv_heads_(config.num_kv_heads),
      d_head_(config.d_head),
      options_(options),
      store_(std::make_shared<Store>()) {}

std::int64_t KvPool::num_used() const { return store_->num_used; }

std::int64_t KvPool::bytes_per_token(const BackboneConfig& config, const at::TensorOptions& options) {
  return 2 * num_cached_layers(config) * config.num_kv_heads * config.d_head *
         static_cast<std::int64_t>(options.dtype().itemsize());
}

std::shared_ptr<const KvPage> KvPool::take() {
  if (most_pages_ > 0 && store_->num_used >= most_pages_) return nullptr;
  std::unique_ptr<KvPage> page;
  if (store_->free.empty()) {
    const auto make = [&] { return at::empty({num_layers_, page_size_, kv_heads_, d_head_}, options_); };
    page = std::make_unique<KvPage>(KvPage{make(), make()});
  } else {
    page = std::move(store_->free.back());
    store_->free.pop_back();
  }
  ++store_->num_used;
  return std::shared_ptr<const KvPage>(page.release(), [store = store_](KvPage* back) {
    --store->num_used;
    store->free.emplace_back(back);
  });
}

std::shared_ptr<const void> KvPool::set_aside(std::int64_t num_pages) {
  if (most_pages_ > 0 && store_->num_used + num_pages > most_pages_) return nullptr;
  store_->num_used += num_pages;
  return std::shared_ptr<const void>(store_.get(),
                                     [store = store_, num_pages](const void*) { store->num_used -= num_pages; });
}

KvSequence::KvSequence(const BackboneConfig& config, const at::TensorOptions& options, std::int64_t capacity)
    : pool_(std::make_shared<KvPool>(config, options, capacity)) {}

void KvSequence::add(std::shared_ptr<const KvPage> page) {
  k_pages_.push_back(page->k.const_data_ptr());
  v_pages_.push_back(page->v.const_data_ptr());
  pages_.push_back(std::move(page));
}

bool KvSequence::reserve(std::int64_t num_tokens) {
  while (static_cast<std::int64_t>(pages_.size()) * page_size() < num_tokens) {
    std::shared_ptr<const KvPage> page = pool_->take();
    if (page == nullptr) return false;
    add(std::move(page));
  }
  return true;
}

void KvSequence::append(int layer, const at::Tensor& k, const at::Tensor& v, std::int64_t begin, std::int64_t count) {
  SKEIN_CHECK(layer >= 0 && layer < pool_->num_layers());
  const at::NoGradGuard no_grad;
  if (!reserve(length_ + count)) throw Failure({"the cache of keys and values is full"});
  for (std::int64_t done = 0; done < count;) {
    const std::int64_t at = (length_ + done) % page_size();
    const KvPage& page = *pages_[static_cast<std::size_t>((length_ + done) / page_size())];
    const std::int64_t piece = std::min(count - done, page_size() - at);
    store(k, begin + done, piece, page.k, layer, at);
    store(v, begin + done, piece, page.v, layer, at);
    done += piece;
  }
}

void KvSequence::advance(std::int64_t num_tokens) { length_ += num_tokens; }

std::int64_t KvSequence::layer_offset(int layer) const { return layer * pages_.front()->k.stride(0); }

std::pair<at::Tensor, at::Tensor> KvSequence::gather(int layer, std::int64_t length) const {
  std::vector<at::Tensor> k, v;
  for (std::int64_t done = 0; done < length; done += page_size()) {
    const KvPage& page = *pages_[static_cast<std::size_t>(done / page_size())];
    const std::int64_t count = std::min(length - done, page_size());
    k.push_back(page.k[layer].narrow(0, 0, count));
    v.push_back(page.v[layer].narrow(0, 0, count));
  }
  SKEIN_CHECK(!k.empty());
  return k.size() == 1 ? std::pair(k.front(), v.front()) : std::pair(at::cat(k), at::cat(v));
}

void KvSequence::adopt(const std::vector<std::shared_ptr<const KvPage>>& pages) {
  SKEIN_CHECK(length_ == 0 && pages_.empty());
  for (const auto& page : pages) {
    SKEIN_CHECK(page->k.size(1) == page_size());
    add(page);
  }
  length_ = static_cast<std::int64_t>(pages.size()) * page_size();
}

}  // namespace skein
