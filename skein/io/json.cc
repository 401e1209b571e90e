#include "skein/io/json.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "skein/base/concat.h"

namespace skein {
namespace {

constexpr std::size_t kMaxDepth = 128;

// Reads a text and remembers how far the parser got, so that every error knows its line.
struct TrackedIterator {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  const char* at;
  const char** reached;  // shared by all copies

  reference operator*() const { return *at; }
  TrackedIterator& operator++() {
    *reached = ++at;
    return *this;
  }
  bool operator==(const TrackedIterator& other) const { return at == other.at; }
  bool operator!=(const TrackedIterator& other) const { return at != other.at; }
};

// nlohmann's parser calls these; a false ends the parse. Builds the document without the linear search that
// ordered_json's operator[] does for each key: duplicates are found once an object is complete.
class DocumentBuilder {
 public:
  Json document;
  std::string fault;

  bool null() { return place(nullptr); }
  bool boolean(bool value) { return place(value); }
  bool number_integer(Json::number_integer_t value) { return place(value); }
  bool number_unsigned(Json::number_unsigned_t value) { return place(value); }
  bool number_float(Json::number_float_t value, const Json::string_t&) { return place(value); }
  bool string(Json::string_t& value) { return place(std::move(value)); }
  bool binary(Json::binary_t&) { return fail("holds binary data"); }

  bool start_object(std::size_t) { return open(Json::object()); }
  bool key(Json::string_t& name) {
    key_ = std::move(name);
    return true;
  }
  bool end_object() {
    const auto* repeated = repeated_key(*open_.back());
    if (repeated != nullptr) return fail(concat("the key \"", printable(*repeated), "\" stands twice in one object"));
    open_.pop_back();
    return true;
  }
  bool start_array(std::size_t) { return open(Json::array()); }
  bool end_array() {
    open_.pop_back();
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) {
    // "[json.exception.parse_error.101] parse error at line 1, column 5: syntax error ...": our own line comes first.
    const std::string_view text = error.what();
    const std::size_t place = text.find(": ");
    return fail(printable(text.substr(place == std::string_view::npos ? 0 : place + 2), 300));
  }

 private:
  bool fail(std::string why) {
    fault = std::move(why);
    return false;
  }

  bool open(Json&& container) {
    if (open_.size() >= kMaxDepth) return fail(concat("is nested deeper than ", kMaxDepth, " levels"));
    open_.push_back(add(std::move(container)));
    return true;
  }

  bool place(Json&& value) {
    add(std::move(value));
    return true;
  }

  // A pointer stays good while its container is open: only the innermost open container grows.
  Json* add(Json&& value) {
    if (open_.empty()) {
      document = std::move(value);
      return &document;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) {
      auto& elements = parent.get_ref<Json::array_t&>();
      elements.push_back(std::move(value));
      return &elements.back();
    }
    auto& members = parent.get_ref<Json::object_t&>();
    members.emplace_back(std::move(key_), std::move(value));
    return &members.back().second;
  }

  static const std::string* repeated_key(const Json& object) {
    const auto& members = object.get_ref<const Json::object_t&>();
    std::vector<const std::string*> keys;
    keys.reserve(members.size());
    for (const auto& member : members) keys.push_back(&member.first);
    const auto less = [](const std::string* a, const std::string* b) { return *a < *b; };
    const auto same = [](const std::string* a, const std::string* b) { return *a == *b; };
    std::sort(keys.begin(), keys.end(), less);
    const auto found = std::adjacent_find(keys.begin(), keys.end(), same);
    return found == keys.end() ? nullptr : *found;
  }

  std::vector<Json*> open_;
  Json::string_t key_;
};

std::string_view kind_of(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return "null";
    case Json::value_t::object:
      return "an object";
    case Json::value_t::array:
      return "an array";
    case Json::value_t::string:
      return "a string";
    case Json::value_t::boolean:
      return "true or false";
    case Json::value_t::number_float:
      return "a fraction";
    default:
      return "an integer";
  }
}

// The field, or null where `otherwise` holds.
Result<const Json*> field(const Json& object, const std::string& key, bool may_be_absent, const std::string& where) {
  if (!object.is_object()) return Error{concat(where, ": found ", kind_of(object), "; an object was expected")};
  const auto found = object.find(key);
  if (found != object.end() && !found->is_null()) return &*found;
  if (may_be_absent) return nullptr;
  return Error{concat(where, ": \"", key, "\" is missing")};
}

Error wrong_kind(const Json& value, const std::string& key, std::string_view expected, const std::string& where) {
  return {concat(where, ": \"", key, "\" is ", kind_of(value), "; ", expected, " was expected")};
}

}  // namespace

Result<Json> parse_json(const std::string& text, const std::string& where) {
  const char* reached = text.data();
  const char* end = text.data() + text.size();
  DocumentBuilder builder;
  if (Json::sax_parse(TrackedIterator{text.data(), &reached}, TrackedIterator{end, &reached}, &builder)) {
    return std::move(builder.document);
  }
  const auto line = 1 + std::count(text.data(), std::min(reached, end), '\n');
  if (text.find_first_not_of(" \t\r\n") == std::string::npos)
    return Error{concat(where, ": it is empty; JSON was expected")};
  return Error{concat(where, ":", line, ": not valid JSON: ", builder.fault)};
}

Result<Json> read_json_file(Env& env, const std::string& path) {
  SKEIN_ASSIGN(const std::string text, read_text_file(env, path));
  return parse_json(text, path);
}

Result<std::int64_t> json_integer(const Json& object, const std::string& key, std::optional<std::int64_t> otherwise,
                                  const std::string& where) {
  SKEIN_ASSIGN(const Json* value, field(object, key, otherwise.has_value(), where));
  if (value == nullptr) return *otherwise;
  if (!value->is_number_integer()) return wrong_kind(*value, key, "an integer", where);
  if (value->is_number_unsigned() && value->get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX)) {
    return Error{concat(where, ": \"", key, "\" is ", value->get<std::uint64_t>(), "; at most 2^63 - 1 was expected")};
  }
  return value->get<std::int64_t>();
}

Result<double> json_number(const Json& object, const std::string& key, std::optional<double> otherwise,
                           const std::string& where) {
  SKEIN_ASSIGN(const Json* value, field(object, key, otherwise.has_value(), where));
  if (value == nullptr) return *otherwise;
  if (!value->is_number()) return wrong_kind(*value, key, "a number", where);
  return value->get<double>();
}

Result<bool> json_bool(const Json& object, const std::string& key, std::optional<bool> otherwise,
                       const std::string& where) {
  SKEIN_ASSIGN(const Json* value, field(object, key, otherwise.has_value(), where));
  if (value == nullptr) return *otherwise;
  if (!value->is_boolean()) return wrong_kind(*value, key, "true or false", where);
  return value->get<bool>();
}

Result<std::string> json_string(const Json& object, const std::string& key, std::optional<std::string> otherwise,
                                const std::string& where) {
  SKEIN_ASSIGN(const Json* value, field(object, key, otherwise.has_value(), where));
  if (value == nullptr) return *otherwise;
  if (!value->is_string()) return wrong_kind(*value, key, "a string", where);
  return value->get<std::string>();
}

}  // namespace skein
