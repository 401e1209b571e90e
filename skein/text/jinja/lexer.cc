#include "skein/text/jinja/lexer.h"

#include <algorithm>
#include <string_view>

#include "skein/base/concat.h"
#include "skein/text/utf8.h"

namespace skein::jinja {
namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  // Line ends become "\n" and one at the very end goes, as Jinja does by default.
  explicit Lexer(const std::string& source) {
    for (std::size_t i = 0; i < source.size(); ++i) {
      const bool return_line = source[i] == '\r';
      if (return_line && i + 1 < source.size() && source[i + 1] == '\n') continue;
      source_ += return_line ? '\n' : source[i];
    }
    if (source_.ends_with('\n')) source_.pop_back();
  }

  Result<std::vector<Token>> run() {
    while (at_ < source_.size()) {
      const std::size_t tag = find_tag();
      const char kind = tag == std::string::npos ? '\0' : source_[tag + 1];
      add_text(tag, kind);
      if (tag == std::string::npos) break;
      at_ = tag + 2;
      if (at_ < source_.size() && (source_[at_] == '-' || source_[at_] == '+')) ++at_;
      if (kind == '#') {
        SKEIN_TRY(skip_comment());
      } else {
        SKEIN_TRY(add_tag(kind == '{'));
      }
    }
    add(Token::Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  void add(Token::Kind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  Error fault(const std::string& what) const { return Error{concat("line ", line_, ": ", what)}; }

  void advance(std::size_t to) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
    at_ = to;
  }

  std::size_t find_tag() const {
    for (std::size_t at = source_.find('{', at_); at != std::string::npos; at = source_.find('{', at + 1)) {
      if (at + 1 < source_.size() && std::string_view("{%#").find(source_[at + 1]) != std::string_view::npos) return at;
    }
    return std::string::npos;
  }

  // The text before a tag, less what the tag's sign or lstrip_blocks takes from its end.
  void add_text(std::size_t tag, char kind) {
    std::string text = source_.substr(at_, tag == std::string::npos ? tag : tag - at_);
    const int line = line_;
    advance(tag == std::string::npos ? source_.size() : tag);
    if (kind != '\0') {
      const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
      if (sign == '-') {
        while (!text.empty() && is_space(text.back())) text.pop_back();
      } else if (sign != '+' && kind != '{') {
        const std::size_t newline = text.rfind('\n');
        const std::size_t begin = newline == std::string::npos ? 0 : newline + 1;
        const bool whole_line = newline != std::string::npos || line_starts_;
        if (whole_line && std::all_of(text.begin() + static_cast<std::ptrdiff_t>(begin), text.end(), is_space)) {
          text.resize(begin);
        }
      }
    }
    if (!text.empty()) tokens_.push_back({Token::Kind::kText, std::move(text), line});
  }

  // After a tag's last brace: "-" takes all white space that follows, a block without "+" one newline.
  void finish_tag(char sign, bool trims_newline) {
    std::size_t end = at_;
    if (sign == '-') {
      while (end < source_.size() && is_space(source_[end])) ++end;
    } else if (sign != '+' && trims_newline && end < source_.size() && source_[end] == '\n') {
      ++end;
    }
    line_starts_ = end > at_ && source_[end - 1] == '\n';
    advance(end);
  }

  Status skip_comment() {
    const std::size_t end = source_.find("#}", at_);
    if (end == std::string::npos) return fault("a comment does not end");
    const char sign = end > at_ ? source_[end - 1] : '\0';
    advance(end + 2);
    finish_tag(sign, true);
    return {};
  }

  Status add_tag(bool output) {
    add(output ? Token::Kind::kOutputBegin : Token::Kind::kBlockBegin, "");
    const std::string_view close = output ? "}}" : "%}";
    int nesting = 0;  // a "}}" inside a dict literal does not end the tag
    for (;;) {
      while (at_ < source_.size() && is_space(source_[at_])) advance(at_ + 1);
      if (at_ >= source_.size()) return fault("a tag does not end");
      const std::string_view rest = std::string_view(source_).substr(at_);
      const bool signed_end = (rest[0] == '-' || rest[0] == '+') && rest.substr(1).starts_with(close);
      if (nesting == 0 && (signed_end || rest.starts_with(close))) {
        const char sign = signed_end ? rest[0] : '\0';
        advance(at_ + (signed_end ? 3 : 2));
        add(output ? Token::Kind::kOutputEnd : Token::Kind::kBlockEnd, "");
        finish_tag(sign, !output);
        return {};
      }
      const char c = rest[0];
      if (c == '{' || c == '(' || c == '[') ++nesting;
      if (c == '}' || c == ')' || c == ']') --nesting;
      SKEIN_TRY(add_token());
    }
  }

  Status add_token() {
    const char c = source_[at_];
    if (is_name_start(c)) {
      std::size_t end = at_;
      while (end < source_.size() && (is_name_start(source_[end]) || is_digit(source_[end]))) ++end;
      add(Token::Kind::kName, source_.substr(at_, end - at_));
      at_ = end;
      return {};
    }
    if (is_digit(c)) return add_number();
    if (c == '"' || c == '\'') return add_string(c);
    static constexpr std::string_view kOperators[] = {"**", "//", "==", "!=", "<=", ">=", "+", "-", "*",
                                                      "/",  "%",  "~",  "<",  ">",  "=",  "(", ")", "[",
                                                      "]",  "{",  "}",  ",",  ":",  ".",  "|"};
    for (const std::string_view op : kOperators) {
      if (std::string_view(source_).substr(at_).starts_with(op)) {
        add(Token::Kind::kOperator, std::string(op));
        at_ += op.size();
        return {};
      }
    }
    return fault(concat("the character \"", printable(std::string(1, c)), "\" has no meaning in a tag"));
  }

  Status add_number() {
    std::size_t end = at_;
    while (end < source_.size() && is_digit(source_[end])) ++end;
    bool fraction = end + 1 < source_.size() && source_[end] == '.' && is_digit(source_[end + 1]);
    if (fraction) {
      ++end;
      while (end < source_.size() && is_digit(source_[end])) ++end;
    }
    std::size_t exponent = end + 1;  // after an "e"
    if (exponent < source_.size() && (source_[exponent] == '-' || source_[exponent] == '+')) ++exponent;
    if (exponent < source_.size() && source_[end] == 'e' && is_digit(source_[exponent])) {
      fraction = true;
      end = exponent;
      while (end < source_.size() && is_digit(source_[end])) ++end;
    }
    if (!fraction && end - at_ > 18) return fault("an integer has more than 18 digits");
    add(fraction ? Token::Kind::kFloat : Token::Kind::kInteger, source_.substr(at_, end - at_));
    at_ = end;
    return {};
  }

  Status add_string(char quote) {
    std::string value;
    std::size_t at = at_ + 1;
    for (; at < source_.size() && source_[at] != quote; ++at) {
      if (source_[at] != '\\' || at + 1 >= source_.size()) {
        value += source_[at];
        continue;
      }
      const char escaped = source_[++at];
      const std::size_t digits = escaped == 'x' ? 2 : escaped == 'u' ? 4 : escaped == 'U' ? 8 : 0;
      if (digits > 0) {
        char32_t code_point = 0;
        for (std::size_t i = 1; i <= digits; ++i) {
          const char digit = at + i < source_.size() ? source_[at + i] : '?';
          const std::size_t hex = std::string_view("0123456789abcdefABCDEF").find(digit);
          if (hex == std::string_view::npos) return fault("a string has a broken \\x or \\u escape");
          code_point = code_point << 4 | (hex < 16 ? hex : hex - 6);
        }
        if (code_point > 0x10FFFF || (code_point >= 0xD800 && code_point <= 0xDFFF)) {
          return fault("a string escapes what is no character");
        }
        append_utf8(code_point, value);
        at += digits;
        continue;
      }
      static constexpr std::string_view kEscaped = "nrtbfav0\\'\"\n", kMeaning = {"\n\r\t\b\f\a\v\0\\'\"\0", 12};
      const std::size_t found = kEscaped.find(escaped);
      if (found == std::string_view::npos) {
        value += {'\\', escaped};  // as Python keeps it
      } else if (escaped != '\n') {
        value += kMeaning[found];
      }
    }
    if (at >= source_.size()) return fault("a string does not end");
    add(Token::Kind::kString, std::move(value));
    advance(at + 1);
    return {};
  }

  std::string source_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool line_starts_ = true;  // the text that follows begins a line
  std::vector<Token> tokens_;
};

}  // namespace

Result<std::vector<Token>> tokenize(const std::string& source) { return Lexer(source).run(); }

}  // namespace skein::jinja
