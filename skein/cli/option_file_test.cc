#include "skein/cli/option_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <CLI/CLI.hpp>

#include <cstdlib>
#include <fstream>

#include "skein/base/result.h"
#include "skein/io/temporary_folder.h"

namespace skein {
namespace {

using ::testing::HasSubstr;

class OptionFile : public ::testing::Test {
 protected:
  OptionFile() {
    command_.add_option("--port", port_)->check(CLI::Range(0, 65535));
    command_.add_option("--name", name_);
    command_.add_option("--mixture", mixtures_);
    command_.add_flag("--quiet", quiet_);
  }

  // The error, or nothing.
  std::string take(const std::string& yaml, const std::string& line = "") {
    std::ofstream(folder_ / "o.yml") << yaml;
    command_.parse(line, false);
    try {
      take_options_from_file(command_, folder_ / "o.yml");
    } catch (const Failure& failure) {
      EXPECT_EQ(failure.error().kind, ErrorKind::kUsage);
      return failure.what();
    }
    return "";
  }

  CLI::App command_{"test"};
  int port_ = 1;
  std::string name_ = "default";
  std::vector<std::string> mixtures_;
  bool quiet_ = false;
  TemporaryFolder folder_;
};

TEST_F(OptionFile, GivesValuesListsAndFlags) {
  EXPECT_EQ(take("port: 80\nname: 'a b'\nmixture: [x, y]\nquiet: true\n"), "");
  EXPECT_EQ(port_, 80);
  EXPECT_EQ(name_, "a b");
  EXPECT_EQ(mixtures_, (std::vector<std::string>{"x", "y"}));
  EXPECT_TRUE(quiet_);
}

TEST_F(OptionFile, StandsBehindTheCommandLineAndTheEnvironment) {
  take_options_from_environment(command_, "SKEIN_TEST");
  ASSERT_EQ(setenv("SKEIN_TEST_NAME", "environment", 1), 0);
  EXPECT_EQ(take("port: 80\nname: file\n", "--port 90"), "");
  unsetenv("SKEIN_TEST_NAME");
  EXPECT_EQ(port_, 90);
  EXPECT_EQ(name_, "environment");
}

TEST_F(OptionFile, NamesTheLineOfWhatIsWrong) {
  EXPECT_THAT(take("name: x\n\nprot: 80\n"), HasSubstr("line 3"));
  EXPECT_THAT(take("prot: 80\n"), HasSubstr("did you mean port?"));
  EXPECT_THAT(take("port: 70000\n"), HasSubstr("line 1"));
  EXPECT_THAT(take("name: {a: b}\n"), HasSubstr("a mapping"));
  EXPECT_THAT(take("- port\n"), HasSubstr("no single mapping"));
  EXPECT_EQ(take(""), "");
}

}  // namespace
}  // namespace skein
