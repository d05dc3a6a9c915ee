#include "host/engine.h"

#include <algorithm>
#include <stdexcept>
#include <thread>
#include <utility>

#include "formats/packed_model.h"
#include "host/memory_map.h"
#include "host/model_header.h"
#include "host/reset_command.h"
#include "host/session.h"
#include "kernels/contract/launch.h"

namespace flexllm::host {
namespace {

using Clock = std::chrono::steady_clock;
using Kind = DeviceError::Kind;
using kernels::kFieldsPerWord;
using kernels::kWordBytes;
using std::chrono::milliseconds;

constexpr milliseconds kReopenInterval{500};

std::string name_of(Stage stage) { return stage == Stage::prefill ? "prefill" : "decode"; }

// Why a launch did not complete, from its ERT state.
DeviceError not_completed(Stage stage, ert_cmd_state state) {
  const std::string launch = "the " + name_of(stage) + " launch ";
  switch (state) {
    case ERT_CMD_STATE_ERROR:
      return {Kind::launch_failed, launch + "ended in an error state"};
    case ERT_CMD_STATE_ABORT:
      return {Kind::launch_failed, launch + "was aborted"};
    case ERT_CMD_STATE_NORESPONSE:
      return {Kind::lost, launch + "got no response from the card"};
    default:
      return {Kind::launch_failed,
              launch + "ended in ERT state " + std::to_string(static_cast<int>(state))};
  }
}

}  // namespace

struct Engine::State {
  EngineOptions options;
  MemoryMap map;
  ModelHeader header;
  std::shared_ptr<const formats::PackedModel> model;
  std::unique_ptr<Session> session;  // null: the card is lost
  std::optional<PageAllocator> pages;
  EngineLimits limits;
  uint32_t next_id = 1;
  bool broken = false;  // recover() is due
  std::shared_ptr<DeviceTelemetry> telemetry = std::make_shared<DeviceTelemetry>();

  StageUnit& unit(Stage stage);
  tl::expected<void, DeviceError> broke(DeviceError error) {
    broken = true;
    return tl::unexpected(std::move(error));
  }
  tl::expected<LaunchResult, DeviceError> collect(Stage stage, StageUnit& unit);
  tl::expected<DeviceBuffer*, DeviceError> arena_of(PageId page);
  uint64_t offset_of(PageId page) const { return page / map.kv_streams * header.page_bytes(); }
};

StageUnit& Engine::State::unit(Stage stage) {
  StageUnit* found = session ? session->stage(stage) : nullptr;
  if (found == nullptr) {
    throw std::invalid_argument("accelerator '" + map.accelerator + "' has no " + name_of(stage) +
                                " kernel");
  }
  return *found;
}

Engine::Engine(std::unique_ptr<State> state) : state_(std::move(state)) {}
Engine::~Engine() = default;

tl::expected<std::unique_ptr<Engine>, DeviceError> Engine::open(
    const EngineOptions& options, std::shared_ptr<const formats::PackedModel> model) {
  auto state = std::make_unique<State>();
  state->options = options;
  if (state->options.memory_map.empty()) {
    state->options.memory_map = options.bitstream;
    state->options.memory_map.replace_extension(".json");
  }
  state->model = std::move(model);
  auto map = read_memory_map(state->options.memory_map);
  if (!map) return tl::unexpected(map.error());
  state->map = std::move(*map);
  auto header = read_model_header(*state->model, state->map);
  if (!header) return tl::unexpected(header.error());
  state->header = *header;
  auto session =
      Session::open(state->options, state->map, state->header, *state->model, 0, state->telemetry);
  if (!session) return tl::unexpected(session.error());
  state->telemetry->bdf = (*session)->device().info().bdf;
  state->session = std::move(*session);
  state->pages.emplace(state->session->pages(), state->map.kv_streams);

  EngineLimits& limits = state->limits;
  if (const StageUnit* prefill = state->session->stage(Stage::prefill)) {
    limits.max_prefill_rows = prefill->shape.rows;
    limits.max_logits_rows = prefill->shape.logits_slots;
  }
  if (const StageUnit* decode = state->session->stage(Stage::decode)) {
    limits.max_batch = std::min(decode->shape.rows, decode->shape.logits_slots);
  }
  limits.context_length = header->context;
  limits.page_tokens = kernels::kPageTokens;
  limits.pages = state->session->pages();
  limits.layers = header->layers;
  limits.hidden = header->hidden;
  limits.vocab = header->vocab;
  return std::unique_ptr<Engine>(new Engine(std::move(state)));
}

const EngineLimits& Engine::limits() const { return state_->limits; }
PageAllocator& Engine::pages() { return *state_->pages; }

tl::expected<void, DeviceError> Engine::start(const Launch& launch) {
  if (!state_->session || state_->broken) {
    return tl::unexpected(DeviceError{Kind::lost, "the card must be recovered first"});
  }
  StageUnit& unit = state_->unit(launch.stage);
  if (unit.running) {
    throw std::invalid_argument("a " + name_of(launch.stage) + " launch is running already");
  }
  const auto embedding = [this](uint32_t token, std::span<float> out) {
    state_->model->embedding_row(token, out);
  };
  LaunchPlan plan =
      write_descriptor(launch, unit.shape, state_->next_id, embedding, unit.desc.words());
  ++state_->next_id;
  unit.completed.reset();
  if (auto sent = unit.desc.to_card(uint64_t{plan.descriptor_words} * kWordBytes); !sent) {
    return state_->broke(sent.error());
  }
  try {
    unit.started = Clock::now();
    unit.run.start();
  } catch (const std::exception& error) {
    return state_->broke(device_error(
        Kind::launch_failed, "cannot start a " + name_of(launch.stage) + " launch", error));
  }
  unit.running = std::move(plan);
  return {};
}

bool Engine::running(Stage stage) const {
  const StageUnit* unit = state_->session ? state_->session->stage(stage) : nullptr;
  return unit != nullptr && unit->running.has_value();
}

bool Engine::finished(Stage stage) const {
  if (!running(stage)) return true;
  try {
    return state_->session->stage(stage)->run.state() >= ERT_CMD_STATE_COMPLETED;
  } catch (const std::exception&) {
    return true;  // wait() says what is wrong
  }
}

tl::expected<LaunchResult, DeviceError> Engine::wait(Stage stage) {
  StageUnit& unit = state_->unit(stage);
  if (!unit.running) throw std::invalid_argument("no " + name_of(stage) + " launch is running");
  if (state_->broken) {
    return tl::unexpected(DeviceError{Kind::lost, "the card must be recovered first"});
  }
  const auto deadline = unit.started + state_->options.launch_timeout;
  ert_cmd_state state = ERT_CMD_STATE_NEW;
  try {
    // XRT takes 0 for "no limit".
    const auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now());
    state = unit.run.wait(std::max(left, milliseconds(1)));
  } catch (const std::exception& error) {
    state_->broken = true;
    return tl::unexpected(
        device_error(Kind::lost, "waiting for the " + name_of(stage) + " launch", error));
  }
  if (state == ERT_CMD_STATE_TIMEOUT) {
    state_->broken = true;
    ++state_->telemetry->timeouts;
    return tl::unexpected(DeviceError{
        Kind::launch_timeout, "the " + name_of(stage) + " launch did not end within " +
                                  std::to_string(state_->options.launch_timeout.count()) + " ms"});
  }
  if (state != ERT_CMD_STATE_COMPLETED) {
    unit.running.reset();
    DeviceError error = not_completed(stage, state);
    state_->broken = error.kind == Kind::lost;
    return tl::unexpected(std::move(error));
  }
  return state_->collect(stage, unit);
}

tl::expected<LaunchResult, DeviceError> Engine::State::collect(Stage stage, StageUnit& unit) {
  LaunchResult result;
  result.kernel_time = Clock::now() - unit.started;
  LaunchPlan plan = std::move(*unit.running);
  unit.running.reset();
  const uint64_t words = plan.result_words;
  if (auto copied = unit.result.from_card(words * kWordBytes); !copied) {
    broken = true;
    return tl::unexpected(copied.error());
  }
  auto rows = read_results(plan, unit.shape, unit.result.words().first(words * kFieldsPerWord));
  if (!rows) {
    rows.error().message = name_of(stage) + ": " + rows.error().message;
    return tl::unexpected(rows.error());
  }
  result.rows = std::move(*rows);
  unit.completed = std::move(plan);
  return result;
}

tl::expected<LaunchResult, DeviceError> Engine::run(const Launch& launch) {
  if (auto started = start(launch); !started) return tl::unexpected(started.error());
  return wait(launch.stage);
}

tl::expected<std::vector<float>, DeviceError> Engine::logits(Stage stage, uint32_t row) {
  StageUnit& unit = state_->unit(stage);
  if (!unit.completed || row >= unit.completed->rows.size() ||
      !unit.completed->rows[row].has_logits()) {
    throw std::invalid_argument("row " + std::to_string(row) + " of the last " + name_of(stage) +
                                " launch has no logits");
  }
  const uint64_t words = kernels::logits_words(unit.shape.vocab);
  std::vector<float> logits(words * kernels::kFloatsPerWord);
  const uint64_t at = unit.shape.logits + unit.completed->rows[row].logits_slot * words;
  if (auto read = unit.scratch.read(at * kWordBytes, std::as_writable_bytes(std::span(logits)));
      !read) {
    state_->broken = true;
    return tl::unexpected(read.error());
  }
  logits.resize(unit.shape.vocab);
  return logits;
}

tl::expected<DeviceBuffer*, DeviceError> Engine::State::arena_of(PageId page) {
  if (page >= limits.pages) throw std::invalid_argument("no KV page " + std::to_string(page));
  if (!session || broken) {
    return tl::unexpected(DeviceError{Kind::lost, "the card must be recovered first"});
  }
  if (session->copy_path() != CopyPath::staged) {
    return tl::unexpected(
        DeviceError{Kind::copy_failed, "this card cannot copy KV pages by itself"});
  }
  return &session->kv(page % map.kv_streams);
}

tl::expected<std::vector<std::byte>, DeviceError> Engine::read_page(PageId page) {
  auto arena = state_->arena_of(page);
  if (!arena) return tl::unexpected(arena.error());
  std::vector<std::byte> bytes(state_->header.page_bytes());
  if (auto read = (*arena)->read(state_->offset_of(page), bytes); !read) {
    state_->broken = true;
    return tl::unexpected(read.error());
  }
  return bytes;
}

tl::expected<void, DeviceError> Engine::write_page(PageId page, std::span<const std::byte> bytes) {
  if (bytes.size() != state_->header.page_bytes()) {
    throw std::invalid_argument("a KV page has " + std::to_string(state_->header.page_bytes()) +
                                " bytes");
  }
  auto arena = state_->arena_of(page);
  if (!arena) return tl::unexpected(arena.error());
  if (auto written = (*arena)->write(state_->offset_of(page), bytes); !written) {
    return state_->broke(written.error());
  }
  return {};
}

// XRT's run::abort() waits until the launch has ended, which a stuck one never does, and would hold
// the render node open meanwhile. Closing the node makes the driver abort what it can; what is left
// only a reset ends, and a reset needs a closed node.
tl::expected<void, DeviceError> Engine::recover() {
  State& state = *state_;
  const auto begin = Clock::now();
  ++state.telemetry->resets;
  state.session.reset();
  if (!state.options.reset_command.empty()) {
    auto reset = run_reset_command(state.options.reset_command, state.options.reset_timeout);
    if (!reset) return reset;
  }
  while (true) {
    auto session = Session::open(state.options, state.map, state.header, *state.model,
                                 state.limits.pages, state.telemetry);
    if (session) {
      state.session = std::move(*session);
      state.broken = false;
      return {};
    }
    if (Clock::now() + kReopenInterval > begin + state.options.recovery_timeout) {
      return tl::unexpected(DeviceError{Kind::reset_failed,
                                        "the card did not come back: " + session.error().message});
    }
    std::this_thread::sleep_for(kReopenInterval);
  }
}

std::shared_ptr<const DeviceTelemetry> Engine::telemetry() const { return state_->telemetry; }

std::string Engine::description() const {
  if (!state_->session) return state_->map.accelerator + " on a lost card";
  const DeviceInfo& info = state_->session->device().info();
  return state_->map.accelerator + " on " + info.bdf + " (" + info.shell + "), weights " +
         to_string(state_->session->copy_path());
}

}  // namespace flexllm::host
