#include "host/card/board_files.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>

namespace flexllm::card {
namespace {

using Files = std::map<std::string, std::string>;

std::string hex(std::uint64_t value, int digits) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%0*llx", digits, static_cast<unsigned long long>(value));
  return text;
}

// Names and contents follow xocl of XRT 2.13; libxrt_core reads them for device queries.
void add_identity(Files& files, const Card& card) {
  const Shell& shell = card.shell();
  std::string uuid = shell.shell_uuid;
  std::erase(uuid, '-');
  const std::pair<const char*, std::string> entries[] = {
      {"vendor", hex(shell.vendor, 4)},
      {"device", hex(shell.device, 4)},
      {"subsystem_vendor", hex(shell.subsystem_vendor, 4)},
      {"subsystem_device", hex(shell.subsystem_device, 4)},
      {"resource", "0x0000383ff0000000 0x0000383ff1ffffff 0x000000000014220c"},
      {"userbar", "0"},
      {"ready", "1"},
      {"link_speed", "8"},
      {"link_speed_max", "8"},
      {"link_width", "16"},
      {"link_width_max", "16"},
      {"local_cpulist", "0"},
      {"mfg", "0"},
      {"nodma", "0"},
      {"host_mem_size", "0"},
      {"kds_numcdmas", "1"},
      {"mig_calibration", "1"},
      {"mig_cache_update", "1"},
      {"logic_uuids", uuid},
      {"interface_uuids", uuid},
      {"xocl_errors", ""},
      {"memstat", ""},
      {"kds_scustat_raw", ""},
      {"rom.u.1/VBNV", shell.vbnv},
      {"rom.u.1/FPGA", shell.fpga},
      {"rom.u.1/uuid", uuid},
      {"rom.u.1/timestamp", "0x" + uuid.substr(0, 16)},
      {"rom.u.1/ddr_bank_size", "16"},
      {"rom.u.1/ddr_bank_count_max", "2"},
      {"icap.u.2/idcode", hex(shell.idcode, 8)},
      {"icap.u.2/max_host_mem_aperture", "0x0"},
      {"dma.xdma.u.4/name", "dma"},
      {"address_translator.u.6/host_mem_size", "0"},
      {"hwmon/hwmon0/name", "xocl_userpf"},
  };
  for (const auto& [name, value] : entries) files[name] = value.empty() ? "" : value + "\n";
  files["firewall.u.5/"] = "";
  files["drm/renderD" + std::to_string(card.render_minor()) + "/"] = "";
}

// Fixed, plausible readings: temperatures in degrees, millivolts, milliamperes, microwatts.
void add_sensors(Files& files, const Card& card) {
  constexpr std::pair<const char*, int> readings[] = {
      {"xmc_fpga_temp", 41},      {"xmc_hbm_temp", 43},       {"xmc_fan_temp", 40},
      {"xmc_fan_rpm", 1100},      {"xmc_se98_temp0", 34},     {"xmc_se98_temp1", 33},
      {"xmc_se98_temp2", 35},     {"xmc_power", 31500000},    {"xmc_power_warn", 0},
      {"max_power", 2},           {"xmc_12v_pex_vol", 12180}, {"xmc_12v_pex_curr", 1500},
      {"xmc_12v_aux_vol", 12160}, {"xmc_12v_aux_curr", 1000}, {"xmc_vccint_vol", 850},
      {"xmc_vccint_curr", 12000}, {"sc_presence", 1},         {"version", 66051},
  };
  const std::string folder = "xmc.u.3/";
  for (const auto& [name, value] : readings) files[folder + name] = std::to_string(value) + "\n";
  files[folder + "fan_presence"] = "A\n";
  files[folder + "bd_name"] = std::string(card.shell().board) + " (emulated)\n";
  files[folder + "serial_num"] = "EMULATED" + std::to_string(card.index()) + "\n";
  files[folder + "bmc_ver"] = files[folder + "exp_bmc_ver"] = "4.3.27\n";
  files[folder + "status"] = "0x1\n";
}

void add_compute_units(Files& files, const Fabric& fabric) {
  std::string table;
  const auto units = fabric.status();
  for (std::size_t i = 0; i < units.size(); ++i) {
    table += "0," + std::to_string(i) + "," + units[i].name + "," + hex(units[i].base, 1) + "," +
             (units[i].busy ? "0x1" : "0x4") + "," + std::to_string(units[i].launches) + "\n";
    const std::string folder = "CU." + std::to_string(i) + "/";
    files[folder + "name"] = "CU[" + std::to_string(i) + "]\n";
    files[folder + "size"] = hex(Fabric::kRegisterBytes, 1) + "\n";
  }
  files["kds_custat_raw"] = table;
}

void add_memory(Files& files, const Fabric& fabric) {
  std::string usage;
  for (std::size_t i = 0; i < fabric.banks(); ++i) {
    const auto bank = fabric.bank(i);
    const Bank::Usage used = bank ? bank->usage() : Bank::Usage{};
    usage += std::to_string(used.bytes) + " " + std::to_string(used.buffers) + " 0\n";
    const std::string folder = "mig.u." + std::to_string(i) + "/";
    files[folder + "name"] = (bank ? bank->tag() : std::string()) + "\n";
    for (const char* counter :
         {"ecc_status", "ecc_ce_cnt", "ecc_ue_cnt", "ecc_ce_ffa", "ecc_ue_ffa"}) {
      files[folder + counter] = "0\n";
    }
  }
  files["memstat_raw"] = usage;
}

}  // namespace

Files board_files(const Card& card) {
  const Card::Status status = card.status();
  Files files;
  add_identity(files, card);
  add_sensors(files, card);
  files["dev_offline"] = status.gone ? "1\n" : "0\n";
  files["xclbinuuid"] = status.uuid.empty() ? "" : status.uuid + "\n";
  files["dma.xdma.u.4/channel_stat_raw"] = std::to_string(status.bytes_from_card) + " " +
                                           std::to_string(status.bytes_to_card) + "\n0 0\n";
  files["kds_custat_raw"] = files["memstat_raw"] = "";
  files["icap.u.2/ps_kernel"] = "";
  files["icap.u.2/clock_freqs"] = "300\n500\n0\n0\n";
  const Bitstream none;
  const Bitstream& loaded = status.fabric ? status.fabric->bitstream() : none;
  files["icap.u.2/mem_topology"] = loaded.mem_topology;
  files["icap.u.2/group_topology"] = loaded.group_topology;
  files["icap.u.2/ip_layout"] = loaded.ip_layout;
  files["icap.u.2/clock_freq_topology"] = loaded.clocks;
  if (status.fabric) {
    add_compute_units(files, *status.fabric);
    add_memory(files, *status.fabric);
  }
  return files;
}

}  // namespace flexllm::card
