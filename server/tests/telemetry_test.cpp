// Traces, and what is known of the card beside the scheduler.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>

#include "server/telemetry/device_monitor.h"
#include "server/tests/harness.h"

namespace flexllm::server::testing {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

class TraceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(::testing::TempDir()) /
              ("trace-" + std::to_string(::getpid()) + "-" +
               ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::create_directories(folder_);
    file_ = folder_ / "trace.json";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  json read() const { return json::parse(std::ifstream(file_)); }

  std::filesystem::path folder_;
  std::filesystem::path file_;
};

struct Span {
  double begin = 0;
  double end = 0;
  json args;
};

// Spans of requests by the request's name, then by their own.
std::map<std::string, std::multimap<std::string, Span>> by_request(const json& events) {
  std::map<uint64_t, std::string> names;
  for (const auto& event : events) {
    if (event["name"] == "thread_name" && event["pid"] == 1) {
      names[event["tid"]] = event["args"]["name"];
    }
  }
  std::map<std::string, std::multimap<std::string, Span>> found;
  for (const auto& event : events) {
    if (event["ph"] == "M" || event["pid"] != 1) continue;
    const double begin = event["ts"];
    found[names.at(event["tid"])].emplace(
        event["name"], Span{begin, begin + event.value("dur", 0.0), event["args"]});
  }
  return found;
}

TEST_F(TraceTest, HasASpanForEachPartOfARequest) {
  SchedulerOptions options;
  options.prefill_chunk = 8;
  options.trace = Trace::open(file_, 1u << 20).value();
  {
    Bench bench(chatty_model(), options);
    std::vector<std::unique_ptr<Reader>> readers;
    for (const char* name : {"first", "second \"quoted\" \\"}) {
      auto request = bench.request("a prompt of twenty-nine bytes", 12);
      request.id = name;
      request.ignore_eos = true;
      readers.push_back(bench.submit(std::move(request)));
    }
    for (auto& reader : readers) ASSERT_TRUE(reader->read_all().usage);
  }
  options.trace.reset();
  const json events = read();
  auto requests = by_request(events);
  ASSERT_EQ(requests.size(), 2u);
  for (const auto& [name, spans] : requests) {
    SCOPED_TRACE(name);
    const Span& whole = spans.find("request")->second;
    EXPECT_EQ(whole.args["prompt_tokens"], 29);
    EXPECT_EQ(whole.args["tokens"], 12);
    EXPECT_EQ(spans.find("decode")->second.args["tokens"], 12);
    EXPECT_EQ(spans.count("queued"), 1u);
    EXPECT_EQ(spans.count("fault") + spans.count("preempted"), 0u);
    for (const auto& [part, span] : spans) {
      EXPECT_GE(span.begin, whole.begin - 0.2) << part;
      EXPECT_LE(span.end, whole.end + 0.2) << part;
    }
  }
  // Whatever the chunks and the pages taken over from the other: the prompt's positions once.
  const auto& first = requests.at("first");
  std::set<uint64_t> positions;
  for (auto [at, end] = first.equal_range("prefill"); at != end; ++at) {
    for (uint64_t row = 0; row < at->second.args["rows"]; ++row) {
      EXPECT_TRUE(positions.insert(at->second.args["position"].get<uint64_t>() + row).second);
    }
  }
  EXPECT_GE(positions.size(), 28u);
  size_t launches = 0;
  for (const auto& event : events) launches += event["ph"] == "X" && event["pid"] == 2;
  EXPECT_GE(launches, 11u);  // decode steps
}

TEST_F(TraceTest, ShowsFaultsAndResets) {
  SchedulerOptions options;
  options.trace = Trace::open(file_, 1u << 20).value();
  {
    Bench bench(chatty_model(), options);
    bench.card->fail_wait_after = 2;
    auto request = bench.request("hello", 12);
    request.id = "the one";
    ASSERT_TRUE(bench.run(request).usage);
  }
  options.trace.reset();
  const json events = read();
  EXPECT_EQ(by_request(events).at("the one").count("fault"), 1u);
  size_t resets = 0;
  for (const auto& event : events) resets += event["name"] == "reset";
  EXPECT_EQ(resets, 1u);
}

TEST_F(TraceTest, StaysWithinItsLimitAndIsStillJson) {
  auto trace = Trace::open(file_, 4096).value();
  const auto now = std::chrono::steady_clock::now();
  for (int i = 0; i < 1000; ++i) trace->instant(Trace::of_request(1), "fault", now);
  EXPECT_GT(trace->dropped(), 900u);
  const uint64_t dropped = trace->dropped();
  trace.reset();
  EXPECT_LE(std::filesystem::file_size(file_), 4096u);
  EXPECT_EQ(read().size(), 1000 - dropped + 5);
}

TEST_F(TraceTest, IsReadableWhileItGrows) {
  auto trace = Trace::open(file_, 1u << 20).value();
  trace->instant(Trace::of_request(1), "fault", std::chrono::steady_clock::now());
  std::string text;
  while (text.find("fault") == std::string::npos) {
    std::ifstream in(file_);
    text.assign(std::istreambuf_iterator<char>(in), {});
    std::this_thread::sleep_for(5ms);
  }
  EXPECT_TRUE(json::accept(text + "]")) << text;
}

TEST_F(TraceTest, SaysWhatIsWrongWithAFile) {
  const auto trace = Trace::open(folder_ / "none" / "trace.json", 4096);
  ASSERT_FALSE(trace);
  EXPECT_NE(trace.error().find("No such file"), std::string::npos) << trace.error();
}

TEST(DeviceMonitor, SumsUpPowerOverTime) {
  auto telemetry = std::make_shared<host::DeviceTelemetry>();
  auto metrics = std::make_shared<Metrics>();
  metrics->generated_tokens = 7;  // before the first look
  host::BoardReading board;
  DeviceMonitor monitor(
      telemetry, metrics,
      {.device = "a \"card\"", .emulated = true, .interval = 0ms, .board = [&] { return board; }});
  const DeviceMonitor::Clock::time_point start{};
  monitor.look(start);
  EXPECT_FALSE(monitor.lately().joules);
  board = {.watts = 20, .celsius = 40};
  monitor.look(start + 1s);
  EXPECT_FALSE(monitor.lately().joules) << "one reading spans no time";
  board.watts = 40;
  metrics->generated_tokens = 17;
  monitor.look(start + 3s);
  EXPECT_DOUBLE_EQ(monitor.lately().joules.value(), 60);
  EXPECT_DOUBLE_EQ(monitor.lately().joules_per_token.value(), 6);
  board.watts.reset();  // a reset of the card
  monitor.look(start + 4s);
  board.watts = 40;
  monitor.look(start + 60s);
  EXPECT_DOUBLE_EQ(monitor.lately().joules.value(), 60);
  monitor.look(start + 61s);
  EXPECT_DOUBLE_EQ(monitor.lately().joules.value(), 100);
  std::string text;
  monitor.write(text);
  for (const char* line : {"flexllm_device_info{device=\"a \\\"card\\\"\",emulated=\"true\"} 1\n",
                           "flexllm_board_energy_joules_total{emulated=\"true\"} 100\n",
                           "flexllm_board_power_watts{emulated=\"true\"} 40\n",
                           "flexllm_board_temperature_celsius{emulated=\"true\"} 40\n",
                           "flexllm_energy_per_token_joules{emulated=\"true\"} 10\n",
                           "flexllm_device_copied_bytes_total{direction=\"to_card\"} 0\n"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line << text;
  }
}

// Every metric that there is, as text.
std::string all_metrics() {
  auto metrics = std::make_shared<Metrics>();
  DeviceMonitor monitor(std::make_shared<host::DeviceTelemetry>(), metrics,
                        {.device = "card", .interval = 0ms, .board = [] {
                           return host::BoardReading{.watts = 20, .celsius = 40};
                         }});
  const DeviceMonitor::Clock::time_point start{};
  monitor.look(start);
  metrics->generated_tokens = 1;
  monitor.look(start + 1s);
  std::string text = metrics->prometheus();
  monitor.write(text);
  return text;
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(Metrics, AreTheTableOfTheirPage) {
  const std::regex a_label("(\\w+)=\"");
  std::string table;
  std::string help;
  std::istringstream lines(all_metrics());
  std::string row;  // of a metric whose labels are not known yet
  for (std::string line; std::getline(lines, line);) {
    std::smatch found;
    if (std::regex_match(line, found, std::regex("# HELP (\\S+) (.*)"))) {
      help = found[2];
    } else if (std::regex_match(line, found, std::regex("# TYPE (\\S+) (\\S+)"))) {
      row = "| `" + found[1].str() + "` | " + found[2].str() + " | ";
    } else if (!row.empty()) {
      std::string labels;
      for (std::sregex_iterator label(line.begin(), line.end(), a_label), end; label != end;
           ++label) {
        if ((*label)[1] == "le") continue;
        labels += (labels.empty() ? "`" : ", `") + (*label)[1].str() + "`";
      }
      table += row + labels + " | " + help + " |\n";
      row.clear();
    }
  }
  const auto page = std::filesystem::path(FLEXLLM_ROOT) / "docs" / "observability.md";
  EXPECT_NE(read_file(page).find("|---|---|---|---|\n" + table + "\n"), std::string::npos)
      << page << " should have this table:\n"
      << table;
}

TEST(Metrics, OfTheDashboardAreThere) {
  const std::string all = all_metrics();
  const json dashboard =
      json::parse(read_file(std::filesystem::path(FLEXLLM_ROOT) / "configs/grafana/flexllm.json"));
  size_t names = 0;
  for (const auto& panel : dashboard["panels"]) {
    for (const auto& target : panel["targets"]) {
      const std::string query = target["expr"];
      const std::regex pattern("flexllm_[a-z_]+");
      for (std::sregex_iterator name(query.begin(), query.end(), pattern), end; name != end;
           ++name, ++names) {
        EXPECT_TRUE(std::regex_search(all, std::regex("\n" + name->str() + "[{ ]"))) << name->str();
      }
    }
  }
  EXPECT_GT(names, 25u);
}

TEST(DeviceMonitor, TellsNothingOfABoardThatTellsNothing) {
  auto metrics = std::make_shared<Metrics>();
  DeviceMonitor monitor(std::make_shared<host::DeviceTelemetry>(), metrics,
                        {.device = "card", .board = {}});
  std::string text;
  monitor.write(text);
  EXPECT_EQ(text.find("board"), std::string::npos);
  EXPECT_EQ(text.find("joules"), std::string::npos);
  EXPECT_NE(text.find("flexllm_device_resets_total 0\n"), std::string::npos);
}

}  // namespace
}  // namespace flexllm::server::testing
