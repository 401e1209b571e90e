// First in, first out among the things of one client; clients take turns.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>

namespace skein {

// Not thread-safe: its owner locks.
template <typename Item>
class FairQueue {
 public:
  void push(const std::string& client, Item item) {
    std::deque<Item>& items = items_of_[client];
    if (items.empty()) turns_.push_back(client);
    items.push_back(std::move(item));
    ++size_;
  }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  const Item& front() const { return items_of_.at(turns_.front()).front(); }
  Item pop() {
    const std::string client = std::move(turns_.front());
    turns_.pop_front();
    const auto found = items_of_.find(client);
    Item item = std::move(found->second.front());
    found->second.pop_front();
    --size_;
    if (found->second.empty()) {
      items_of_.erase(found);
    } else {
      turns_.push_back(client);
    }
    return item;
  }
  // Takes out the first item that fits, in no particular order of clients.
  template <typename Fits>
  std::optional<Item> take(const Fits& fits) {
    for (auto client = items_of_.begin(); client != items_of_.end(); ++client) {
      std::deque<Item>& items = client->second;
      for (auto item = items.begin(); item != items.end(); ++item) {
        if (!fits(*item)) continue;
        Item taken = std::move(*item);
        items.erase(item);
        --size_;
        if (items.empty()) {
          std::erase(turns_, client->first);
          items_of_.erase(client);
        }
        return taken;
      }
    }
    return std::nullopt;
  }

 private:
  std::map<std::string, std::deque<Item>> items_of_;  // none empty
  std::deque<std::string> turns_;                     // clients with items, the next first
  std::size_t size_ = 0;
};

}  // namespace skein
