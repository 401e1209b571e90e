#include "skein/io/pickle.h"

#include <bit>
#include <deque>
#include <optional>
#include <unordered_map>
#include <utility>

#include "skein/base/concat.h"
#include "skein/io/byte_reader.h"
#include "skein/io/pickle_nodes.h"

namespace skein {
namespace {

using namespace pickle;  // NOLINT: the machine's own words

constexpr std::size_t kMaxRank = 64;  // bounds what copying a shape again and again can cost; torch's own bound too
constexpr std::size_t kMaxStorageNameBytes = 64;

class PickleMachine {
 public:
  PickleMachine(std::span<const std::byte> bytes, const std::string& where) : reader_(bytes), where_(where) {}

  Result<PickleValue> run() {
    while (!stopped_) {
      at_ = reader_.position();
      const auto opcode = reader_.number<std::uint8_t>();
      if (!reader_.ok()) return fault("it ends without a STOP; was it cut short?");
      SKEIN_TRY(execute(opcode));
      if (!reader_.ok()) return fault("it ends in the middle of an instruction; was it cut short?");
      if (nodes_.size() > kMaxNodes)
        return fault("it holds more than ", kMaxNodes, " values, the most that are accepted");
    }
    return unfold(*result_, where_);
  }

 private:
  template <typename... Parts>
  Error fault(const Parts&... parts) const {
    return {concat(where_, ": pickle, byte ", at_, ": ", parts...)};
  }

  Status execute(std::uint8_t opcode) {
    switch (opcode) {
      case 0x80: {  // PROTO
        const auto version = reader_.number<std::uint8_t>();
        if (version < 2 || version > 5) return fault("protocol ", int{version}, "; 2 to 5 was expected");
        return {};
      }
      case 0x95:
        reader_.take(8);
        return {};  // FRAME: a hint for buffered readers
      case '.':
        return stop();
      case 'N':
        return push(std::monostate{});
      case 0x88:
        return push(true);
      case 0x89:
        return push(false);
      case 'J':
        return push(std::int64_t{reader_.number<std::int32_t>()});
      case 'K':
        return push(std::int64_t{reader_.number<std::uint8_t>()});
      case 'M':
        return push(std::int64_t{reader_.number<std::uint16_t>()});
      case 0x8a:
        return push_long();
      case 'G':
        return push_float();
      case 0x8c:
        return push(reader_.text(reader_.number<std::uint8_t>()));  // SHORT_BINUNICODE
      case 'X':
        return push(reader_.text(reader_.number<std::uint32_t>()));  // BINUNICODE
      case 0x8d:
        return push(reader_.text(reader_.number<std::uint64_t>()));  // BINUNICODE8
      case '}':
        return push(Mapping{});
      case ']':
        return push(Sequence{});
      case ')':
        return push(Sequence{.is_tuple = true});
      case '(':
        marks_.push_back(stack_.size());
        return {};
      case 't':
        return tuple_from_mark();
      case 0x85:
        return tuple_of(1);
      case 0x86:
        return tuple_of(2);
      case 0x87:
        return tuple_of(3);
      case 'a':
        return append(1);
      case 'e':
        return append_from_mark();
      case 's':
        return set_items(2);
      case 'u':
        return set_items_from_mark();
      case 'q':
        return remember(reader_.number<std::uint8_t>());
      case 'r':
        return remember(reader_.number<std::uint32_t>());
      case 0x94:
        return remember(static_cast<std::uint32_t>(memo_.size()));  // MEMOIZE
      case 'h':
        return recall(reader_.number<std::uint8_t>());
      case 'j':
        return recall(reader_.number<std::uint32_t>());
      case 'c':
        return global_from_lines();
      case 0x93:
        return global_from_stack();
      case 'Q':
        return persistent_id();
      case 'R':
        return reduce();
      case 'b':
        return build();
      default:
        return fault("opcode ", int{opcode}, " is not one that torch.save needs, and is not allowed");
    }
  }

  template <typename T>
  Status push(T&& value) {
    nodes_.push_back({std::forward<T>(value)});
    stack_.push_back(&nodes_.back());
    return {};
  }

  // The topmost `count` values above the last mark, taken off.
  Result<std::vector<Node*>> pop(std::size_t count) {
    const std::size_t floor = marks_.empty() ? 0 : marks_.back();
    if (stack_.size() - floor < count) return fault("an instruction needs more values than there are");
    std::vector<Node*> taken(stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
    stack_.resize(stack_.size() - count);
    return taken;
  }
  Result<std::vector<Node*>> pop_to_mark() {
    if (marks_.empty()) return fault("a mark is missing");
    SKEIN_ASSIGN(auto taken, pop(stack_.size() - marks_.back()));
    marks_.pop_back();
    return taken;
  }
  template <typename T>
  T* top_as() {
    const std::size_t floor = marks_.empty() ? 0 : marks_.back();
    return stack_.size() > floor ? std::get_if<T>(&stack_.back()->value) : nullptr;
  }

  Status stop() {
    SKEIN_ASSIGN(const auto taken, pop(1));
    result_ = taken[0];
    stopped_ = true;
    return {};
  }

  Status push_long() {
    const auto size = reader_.number<std::uint8_t>();
    if (size > 8) return fault("an integer of ", int{size}, " bytes; at most 8 are accepted");
    const auto raw = reader_.take(size);
    std::uint64_t bits = !raw.empty() && (raw.back() & std::byte{0x80}) != std::byte{0} ? ~std::uint64_t{0} : 0;
    for (std::size_t i = raw.size(); i-- > 0;) bits = bits << 8 | static_cast<std::uint64_t>(raw[i]);
    return push(static_cast<std::int64_t>(bits));
  }

  Status push_float() { return push(std::bit_cast<double>(__builtin_bswap64(reader_.number<std::uint64_t>()))); }

  Status push_tuple(Result<std::vector<Node*>> items) {
    if (!items.ok()) return items.error();
    return push(Sequence{std::move(items).value(), true});
  }
  Status tuple_of(std::size_t count) { return push_tuple(pop(count)); }
  Status tuple_from_mark() { return push_tuple(pop_to_mark()); }

  Status append_all(Result<std::vector<Node*>> items) {
    if (!items.ok()) return items.error();
    auto* list = top_as<Sequence>();
    if (list == nullptr || list->is_tuple) return fault("appends to what is no list");
    list->items.insert(list->items.end(), items->begin(), items->end());
    return {};
  }
  Status append(std::size_t count) { return append_all(pop(count)); }
  Status append_from_mark() { return append_all(pop_to_mark()); }

  Status set_all(Result<std::vector<Node*>> items) {
    if (!items.ok()) return items.error();
    auto* mapping = top_as<Mapping>();
    if (mapping == nullptr) return fault("sets an item of what is no dict");
    if (items->size() % 2 != 0) return fault("a key without a value");
    for (std::size_t i = 0; i < items->size(); i += 2) mapping->items.emplace_back((*items)[i], (*items)[i + 1]);
    return {};
  }
  Status set_items(std::size_t count) { return set_all(pop(count)); }
  Status set_items_from_mark() { return set_all(pop_to_mark()); }

  Status remember(std::uint32_t slot) {
    if (stack_.empty()) return fault("remembers a value where there is none");
    memo_[slot] = stack_.back();
    return {};
  }
  Status recall(std::uint32_t slot) {
    const auto found = memo_.find(slot);
    if (found == memo_.end()) return fault("recalls value ", slot, ", which was never remembered");
    stack_.push_back(found->second);
    if (stack_.size() > kMaxNodes) return fault("its stack grows beyond ", kMaxNodes, " values");
    return {};
  }

  std::string line() {
    std::string text;
    for (char byte = 0; reader_.ok() && (byte = reader_.number<char>()) != '\n' && reader_.ok();) text += byte;
    return text;
  }
  Status global_from_lines() {
    const std::string module = line();
    return push_global(module, line());
  }
  Status global_from_stack() {
    SKEIN_ASSIGN(const auto parts, pop(2));
    const auto* module = std::get_if<std::string>(&parts[0]->value);
    const auto* name = std::get_if<std::string>(&parts[1]->value);
    if (module == nullptr || name == nullptr) return fault("a global without a name");
    return push_global(*module, *name);
  }
  Status push_global(const std::string& module, const std::string& name) {
    if (!reader_.ok()) return {};
    const std::string full = concat(module, ".", name);
    if (const auto* allowed = find_allowed(full)) return push(allowed);
    return fault(printable(full), " is not allowed; only tensors and plain values are read");
  }

  Status persistent_id() {
    SKEIN_ASSIGN(const auto popped, pop(1));
    const auto* id = std::get_if<Sequence>(&popped[0]->value);
    if (id == nullptr || id->items.size() != 5) return fault("a persistent id that is no storage of torch's");
    const auto* kind = std::get_if<std::string>(&id->items[0]->value);
    const auto* type = std::get_if<const AllowedGlobal*>(&id->items[1]->value);
    const auto* name = std::get_if<std::string>(&id->items[2]->value);
    const auto* elements = std::get_if<std::int64_t>(&id->items[4]->value);
    if (kind == nullptr || *kind != "storage" || type == nullptr || (*type)->callable != Callable::kStorage ||
        name == nullptr || name->size() > kMaxStorageNameBytes || elements == nullptr) {
      return fault("a persistent id that is no storage of torch's");
    }
    return push(Storage{*name, (*type)->dtype, *elements});
  }

  Status reduce() {
    SKEIN_ASSIGN(const auto popped, pop(2));
    const auto* callable = std::get_if<const AllowedGlobal*>(&popped[0]->value);
    const auto* arguments = std::get_if<Sequence>(&popped[1]->value);
    if (callable == nullptr || arguments == nullptr || !arguments->is_tuple) return fault("calls what is no function");
    const auto& items = arguments->items;
    switch ((*callable)->callable) {
      case Callable::kOrderedDict:
        if (!items.empty()) break;
        return push(Mapping{.is_ordered = true});
      case Callable::kSize:
        if (items.size() != 1 || !integers(*items[0])) break;
        return push(Sequence{std::get<Sequence>(items[0]->value).items, true});
      case Callable::kRebuildTensor:
        return rebuild_tensor(items);
      case Callable::kRebuildParameter:
        if (items.size() != 3 || !std::holds_alternative<PickleTensor>(items[0]->value)) break;
        stack_.push_back(items[0]);
        return {};
      case Callable::kStorage:
        break;
    }
    return fault((*callable)->name, " is called with arguments that torch.save never writes");
  }

  // (storage, offset, shape, strides, requires_grad, hooks[, metadata])
  Status rebuild_tensor(const std::vector<Node*>& items) {
    const auto wrong = [this] { return fault("a tensor with arguments that torch.save never writes"); };
    if (items.size() < 6 || items.size() > 7) return wrong();
    const auto* storage = std::get_if<Storage>(&items[0]->value);
    const auto* offset = std::get_if<std::int64_t>(&items[1]->value);
    const auto shape = integers(*items[2]);
    const auto strides = integers(*items[3]);
    if (storage == nullptr || offset == nullptr || !shape || !strides || shape->size() != strides->size())
      return wrong();
    return push(PickleTensor{storage->name, storage->dtype, storage->elements, *offset, *shape, *strides, {}});
  }

  static std::optional<std::vector<std::int64_t>> integers(const Node& node) {
    const auto* sequence = std::get_if<Sequence>(&node.value);
    if (sequence == nullptr || sequence->items.size() > kMaxRank) return std::nullopt;
    std::vector<std::int64_t> values;
    for (const Node* item : sequence->items) {
      const auto* value = std::get_if<std::int64_t>(&item->value);
      if (value == nullptr) return std::nullopt;
      values.push_back(*value);
    }
    return values;
  }

  // Module.state_dict() hangs `_metadata` on its OrderedDict; it says nothing about the tensors and is dropped.
  Status build() {
    SKEIN_ASSIGN(const auto popped, pop(1));
    (void)popped;
    const auto* mapping = top_as<Mapping>();
    if (mapping == nullptr || !mapping->is_ordered) return fault("sets attributes of what is no OrderedDict");
    return {};
  }

  ByteReader reader_;
  const std::string& where_;
  std::size_t at_ = 0;      // first byte of the instruction at hand
  std::deque<Node> nodes_;  // owns all nodes; addresses stay
  std::vector<Node*> stack_;
  std::vector<std::size_t> marks_;  // heights of the stack
  std::unordered_map<std::uint32_t, Node*> memo_;
  Node* result_ = nullptr;
  bool stopped_ = false;
};

}  // namespace

Result<PickleValue> parse_pickle(std::span<const std::byte> bytes, const std::string& where) {
  return PickleMachine(bytes, where).run();
}

}  // namespace skein
