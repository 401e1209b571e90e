#include "skein/io/fault_env.h"

#include <algorithm>
#include <cerrno>
#include <map>
#include <mutex>
#include <utility>

#include "skein/io/file_error.h"

namespace skein {
namespace {

// Shared by the Env and the files opened through it.
struct FaultState {
  std::mutex mutex;
  FaultPlan plan;
  std::int64_t operations = 0;
  std::int64_t written_bytes = 0;
  std::map<std::string, std::uint64_t> unsynced;  // path -> bytes that are safe, of files with bytes that are not
  std::map<std::string, std::vector<std::byte>> safe_content;  // of sized files with bytes that are not safe

  // Counts one mutating call, or says that it fails.
  Status step(std::string_view action, const std::string& path) {
    const std::lock_guard lock(mutex);
    const std::int64_t now = operations++;
    if (plan.fail_at_operation >= 0 && now >= plan.fail_at_operation) return file_error(action, path, EIO);
    return {};
  }
};

class FaultWritable : public WritableFile {
 public:
  FaultWritable(std::shared_ptr<FaultState> state, std::string path, std::unique_ptr<WritableFile> file,
                std::uint64_t size)
      : state_(std::move(state)), path_(std::move(path)), file_(std::move(file)), size_(size), synced_(size) {}

  Status append(std::span<const std::byte> bytes) override {
    SKEIN_TRY(state_->step("write", path_));
    auto fitting = bytes;
    {
      const std::lock_guard lock(state_->mutex);
      const std::int64_t budget = state_->plan.write_budget_bytes;
      if (budget >= 0) {
        const auto room = static_cast<std::size_t>(std::max<std::int64_t>(0, budget - state_->written_bytes));
        fitting = bytes.first(std::min(bytes.size(), room));
      }
      state_->written_bytes += static_cast<std::int64_t>(fitting.size());
      if (!fitting.empty()) state_->unsynced.emplace(path_, synced_);  // an earlier writer's bytes may be unsynced too
    }
    SKEIN_TRY(file_->append(fitting));  // a full disk takes what still fits
    size_ += fitting.size();
    if (fitting.size() < bytes.size()) return file_error("write", path_, ENOSPC);
    return {};
  }
  Status sync() override {
    SKEIN_TRY(state_->step("sync", path_));
    SKEIN_TRY(file_->sync());
    const std::lock_guard lock(state_->mutex);
    synced_ = size_;
    state_->unsynced.erase(path_);
    state_->safe_content.erase(path_);  // a sync is of the file, whichever handle wrote
    return {};
  }
  Status close() override {
    SKEIN_TRY(state_->step("write", path_));
    return file_->close();
  }

 private:
  std::shared_ptr<FaultState> state_;
  std::string path_;
  std::unique_ptr<WritableFile> file_;
  std::uint64_t size_;
  std::uint64_t synced_;
};

// Keeps the whole content as of the last sync: tests write small files.
class FaultSized : public SizedFile {
 public:
  FaultSized(std::shared_ptr<FaultState> state, std::string path, std::unique_ptr<SizedFile> file, Env& inner)
      : state_(std::move(state)), path_(std::move(path)), file_(std::move(file)), inner_(inner) {}

  Status write_at(std::uint64_t offset, std::span<const std::byte> bytes) override {
    SKEIN_TRY(state_->step("write", path_));
    const std::lock_guard lock(state_->mutex);
    const std::int64_t budget = state_->plan.write_budget_bytes;
    auto fitting = bytes;
    if (budget >= 0) {
      const auto room = static_cast<std::size_t>(std::max<std::int64_t>(0, budget - state_->written_bytes));
      fitting = bytes.first(std::min(bytes.size(), room));
    }
    state_->written_bytes += static_cast<std::int64_t>(fitting.size());
    if (!state_->safe_content.contains(path_)) SKEIN_TRY(keep_content());
    SKEIN_TRY(file_->write_at(offset, fitting));
    if (fitting.size() < bytes.size()) return file_error("write", path_, ENOSPC);
    return {};
  }
  void start_writing(std::uint64_t, std::uint64_t) override {}
  Status sync() override {
    SKEIN_TRY(state_->step("sync", path_));
    SKEIN_TRY(file_->sync());
    const std::lock_guard lock(state_->mutex);
    state_->safe_content.erase(path_);
    state_->unsynced.erase(path_);
    return {};
  }
  Status close() override {
    SKEIN_TRY(state_->step("write", path_));
    return file_->close();
  }

 private:
  Status keep_content() {
    SKEIN_ASSIGN(const auto file, inner_.open(path_));
    std::vector<std::byte> content(file->size());
    SKEIN_TRY(file->read_at(0, content));
    state_->safe_content.emplace(path_, std::move(content));
    return {};
  }

  std::shared_ptr<FaultState> state_;
  std::string path_;
  std::unique_ptr<SizedFile> file_;
  Env& inner_;
};

class HalfReadable : public ReadableFile {
 public:
  HalfReadable(std::string path, std::unique_ptr<ReadableFile> file) : path_(std::move(path)), file_(std::move(file)) {}
  std::uint64_t size() const override { return file_->size() / 2; }
  Status read_at(std::uint64_t offset, std::span<std::byte> out) const override {
    if (offset > size() || out.size() > size() - offset) {
      return Error{"cannot read " + path_ + ": it ends early; was it cut short?"};
    }
    return file_->read_at(offset, out);
  }
  void will_need(std::uint64_t, std::uint64_t) const override {}

 private:
  std::string path_;
  std::unique_ptr<ReadableFile> file_;
};

class HalfMap : public MappedFile {
 public:
  explicit HalfMap(std::shared_ptr<const MappedFile> map) : map_(std::move(map)) {}
  std::span<const std::byte> bytes() const override { return map_->bytes().first(map_->bytes().size() / 2); }
  void will_need(std::size_t offset, std::size_t length) const override { map_->will_need(offset, length); }
  void dont_need(std::size_t offset, std::size_t length) const override { map_->dont_need(offset, length); }

 private:
  std::shared_ptr<const MappedFile> map_;
};

class FaultEnvAround : public FaultEnv {
 public:
  explicit FaultEnvAround(Env& inner) : inner_(inner) {}

  void set_plan(FaultPlan plan) override {
    const std::lock_guard lock(state_->mutex);
    state_->plan = plan;
    state_->operations = 0;
    state_->written_bytes = 0;
  }
  std::int64_t operations() const override {
    const std::lock_guard lock(state_->mutex);
    return state_->operations;
  }
  Status lose_unsynced() override;

  Result<std::unique_ptr<ReadableFile>> open(const std::string& path) override {
    SKEIN_ASSIGN(auto file, inner_.open(path));
    if (plan().short_reads) return std::unique_ptr<ReadableFile>(new HalfReadable(path, std::move(file)));
    return file;
  }
  Result<std::shared_ptr<const MappedFile>> map(const std::string& path) override {
    SKEIN_ASSIGN(auto map, inner_.map(path));
    if (plan().short_reads) return std::shared_ptr<const MappedFile>(std::make_shared<HalfMap>(std::move(map)));
    return map;
  }
  Result<std::unique_ptr<WritableFile>> create(const std::string& path) override {
    SKEIN_TRY(state_->step("write", path));
    SKEIN_ASSIGN(auto file, inner_.create(path));
    forget(path);
    return wrap(path, std::move(file), 0);
  }
  Result<std::unique_ptr<WritableFile>> open_for_append(const std::string& path) override {
    SKEIN_TRY(state_->step("write", path));
    SKEIN_ASSIGN(auto file, inner_.open_for_append(path));
    SKEIN_ASSIGN(const FileFacts facts, inner_.facts(path));
    return wrap(path, std::move(file), facts.size_bytes);
  }
  Result<std::unique_ptr<SizedFile>> open_sized(const std::string& path, std::uint64_t size_bytes) override {
    SKEIN_TRY(state_->step("write", path));
    SKEIN_ASSIGN(auto file, inner_.open_sized(path, size_bytes));
    return std::unique_ptr<SizedFile>(new FaultSized(state_, path, std::move(file), inner_));
  }
  Result<FileFacts> facts(const std::string& path) override { return inner_.facts(path); }
  bool exists(const std::string& path) override { return inner_.exists(path); }
  Result<std::vector<std::string>> list(const std::string& folder) override { return inner_.list(folder); }
  Status make_folders(const std::string& folder) override {
    SKEIN_TRY(state_->step("make folder", folder));
    return inner_.make_folders(folder);
  }
  Status rename(const std::string& from, const std::string& to) override {
    SKEIN_TRY(state_->step("rename " + from + " to", to));
    SKEIN_TRY(inner_.rename(from, to));
    forget(to);
    move_unsynced(from, to);
    return {};
  }
  Result<bool> exchange(const std::string& a, const std::string& b) override {
    if (plan().no_exchange) return false;
    SKEIN_TRY(state_->step("exchange " + a + " with", b));
    SKEIN_ASSIGN(const bool exchanged, inner_.exchange(a, b));
    if (exchanged) {
      const std::string aside = a + "\n";
      move_unsynced(a, aside);
      move_unsynced(b, a);
      move_unsynced(aside, b);
    }
    return exchanged;
  }
  Status remove_file(const std::string& path) override {
    SKEIN_TRY(state_->step("remove", path));
    forget(path);
    return inner_.remove_file(path);
  }
  Status remove_tree(const std::string& folder) override {
    SKEIN_TRY(state_->step("remove", folder));
    forget(folder);
    return inner_.remove_tree(folder);
  }
  Status sync_folder(const std::string& folder) override {
    SKEIN_TRY(state_->step("sync", folder));
    return inner_.sync_folder(folder);
  }

 private:
  FaultPlan plan() const {
    const std::lock_guard lock(state_->mutex);
    return state_->plan;
  }
  std::unique_ptr<WritableFile> wrap(const std::string& path, std::unique_ptr<WritableFile> file, std::uint64_t size) {
    return std::make_unique<FaultWritable>(state_, path, std::move(file), size);
  }
  static bool is_at_or_below(const std::string& path, const std::string& root) {
    return path == root || path.starts_with(root + "/");
  }
  void forget(const std::string& root) {
    const std::lock_guard lock(state_->mutex);
    const auto gone = [&](const auto& entry) { return is_at_or_below(entry.first, root); };
    std::erase_if(state_->unsynced, gone);
    std::erase_if(state_->safe_content, gone);
  }
  void move_unsynced(const std::string& from, const std::string& to) {
    const std::lock_guard lock(state_->mutex);
    const auto move_keys = [&](auto& map) {
      std::remove_reference_t<decltype(map)> moved;
      for (auto& [path, kept] : map) {
        moved.emplace(is_at_or_below(path, from) ? to + path.substr(from.size()) : path, std::move(kept));
      }
      map = std::move(moved);
    };
    move_keys(state_->unsynced);
    move_keys(state_->safe_content);
  }

  Env& inner_;
  std::shared_ptr<FaultState> state_ = std::make_shared<FaultState>();
};

Status FaultEnvAround::lose_unsynced() {
  std::map<std::string, std::uint64_t> unsynced;
  std::map<std::string, std::vector<std::byte>> contents;
  {
    const std::lock_guard lock(state_->mutex);
    unsynced = std::exchange(state_->unsynced, {});
    contents = std::exchange(state_->safe_content, {});
  }
  for (const auto& [path, content] : contents) {
    SKEIN_ASSIGN(const auto file, inner_.create(path));
    SKEIN_TRY(file->append(content));
    SKEIN_TRY(file->close());
  }
  for (const auto& [path, safe_bytes] : unsynced) {
    std::vector<std::byte> kept(safe_bytes);
    {
      SKEIN_ASSIGN(const auto file, inner_.open(path));
      SKEIN_TRY(file->read_at(0, kept));
    }
    SKEIN_ASSIGN(const auto file, inner_.create(path));
    SKEIN_TRY(file->append(kept));
    SKEIN_TRY(file->close());
  }
  return {};
}

}  // namespace

std::unique_ptr<FaultEnv> make_fault_env(Env& inner) { return std::make_unique<FaultEnvAround>(inner); }

}  // namespace skein
