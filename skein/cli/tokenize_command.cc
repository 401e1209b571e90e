// skein tokenize: lines of text to ids, or back.
#include <CLI/CLI.hpp>

#include <iostream>

#include "skein/base/concat.h"
#include "skein/base/interrupt.h"
#include "skein/base/result.h"
#include "skein/cli/common_options.h"
#include "skein/cli/result_output.h"
#include "skein/cli/verbs.h"
#include "skein/io/json.h"
#include "skein/text/tokenizer.h"

namespace skein {
namespace {

struct TokenizeOptions {
  std::string base;
  bool no_special = false;
  bool decode = false;
  CommonOptions common;
};

std::vector<TokenId> ids_of_line(const std::string& line, const Tokenizer& tokenizer, std::int64_t number) {
  const std::string where = concat("line ", number, " of standard input");
  const Json ids = or_throw(parse_json(line, where));
  if (!ids.is_array()) throw Failure({concat(where, " is not a JSON array of token ids such as [504, 2]")});
  std::vector<TokenId> out;
  for (const Json& id : ids) {
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0 ||
        id.get<std::int64_t>() >= tokenizer.vocabulary_size()) {
      throw Failure({concat(where, " holds ", printable(json_line(id)),
                            ", which is no token id; this vocabulary has 0 to ", tokenizer.vocabulary_size() - 1)});
    }
    out.push_back(id.get<TokenId>());
  }
  return out;
}

int tokenize(const TokenizeOptions& options) {
  apply_common_options(options.common);
  const std::unique_ptr<Tokenizer> tokenizer = or_throw(load_tokenizer(real_env(), options.base));
  std::string line;
  for (std::int64_t number = 1; std::getline(std::cin, line) && !interrupted(); ++number) {
    if (!options.decode) {
      print_json_line(Json(tokenizer->encode(line, {.add_special = !options.no_special})));
      continue;
    }
    const std::string text = tokenizer->decode(ids_of_line(line, *tokenizer, number), options.no_special);
    options.common.json ? print_json_line(Json(text)) : print_text(text + "\n");
  }
  return interrupted() ? 130 : 0;
}

}  // namespace

void add_tokenize_verb(CLI::App& program, Job& job) {
  auto options = std::make_shared<TokenizeOptions>();
  CLI::App& verb = add_command(program, "tokenize", "Lines of stdin to JSON arrays of token ids, or back",
                               "echo 'The capital of France' | skein tokenize --base models/smollm2.gguf\n"
                               "echo '[504, 3575, 282, 4649]' | skein tokenize --base models/smollm2.gguf --decode");
  verb.add_option("--base", options->base, "The model whose tokenizer to use")->type_name("BASE")->required();
  verb.add_flag("--no-special", options->no_special,
                "Encoding: add no beginning or end token. Decoding: leave special tokens out");
  verb.add_flag("--decode", options->decode, "Read arrays of ids, write text (with --json as JSON strings)");
  add_common_options(verb, options->common);
  verb.callback([&job, options] { job.run = [options] { return tokenize(*options); }; });
}

}  // namespace skein
