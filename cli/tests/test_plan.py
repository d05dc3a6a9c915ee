"""`flexllm plan` as its users see it: figures, refusals, drawing, search."""
import json
import os
import pathlib
import re
import subprocess
import xml.etree.ElementTree

import pytest

BUILD = pathlib.Path(os.environ.get("FLEXLLM_BUILD", "build/release")).resolve()
CONFIGS = BUILD / "share/flexllm/configs"
KINDS = ("dsp", "bram18", "uram", "lut")


def flexllm(*options):
    return subprocess.run([BUILD / "flexllm", "plan", *map(str, options)], text=True,
                          capture_output=True, check=False)


def plan(*options):
    done = flexllm(*options, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def edited(tmp_path, edit, name="u280-combined", edit_device=lambda device: None):
    """A copy of an accelerator with something changed, beside copies of the devices."""
    config = json.loads((CONFIGS / f"accelerators/{name}.json").read_text())
    edit(config)
    for folder in ("accelerators", "devices"):
        (tmp_path / folder).mkdir(exist_ok=True)
    for path in (CONFIGS / "devices").glob("*.json"):
        device = json.loads(path.read_text())
        edit_device(device)
        (tmp_path / "devices" / path.name).write_text(json.dumps(device))
    path = tmp_path / "accelerators" / f"{name}.json"
    path.write_text(json.dumps(config))
    return path


def test_the_published_design_comes_out_as_published():
    report = plan("--published")
    assert abs(report["prefill"]["ratio"] - 1) < 0.10
    assert abs(report["decode"]["ratio"] - 1) < 0.10


def test_the_figures_of_the_readme_are_those_of_the_command():
    readme = (pathlib.Path(__file__).parents[2] / "README.md").read_text()
    rows = re.findall(r"^\| (prompt|decode, batch \d).*?\| ([\d,]+) tokens/s \|", readme, re.M)
    told = {name: int(figure.replace(",", "")) for name, figure in rows}
    one, eight = plan(), plan("--batch", 8)
    assert told == {"prompt": round(one["prefill"]["tokens_per_s"]),
                    "decode, batch 1": round(one["decode"]["tokens_per_s"]),
                    "decode, batch 8": round(eight["decode"]["tokens_per_s"])}


@pytest.mark.parametrize("model", ["llama-3.2-1b", "llama-3.2-3b", "smollm2-135m",
                                   "tinyllama-1.1b", "llama-2-7b"])
@pytest.mark.parametrize("accelerator", ["u280-combined", "u280-paper", "v80"])
def test_every_model_has_a_plan(model, accelerator):
    report = plan("--model", model, "--accelerator", accelerator, "--prompt", 200, "--generate", 50)
    assert report["figures"] == "modelled"
    for stage in ("prefill", "decode"):
        assert report[stage]["tokens_per_s"] > 1
        assert 0 < report[stage]["roofline_share"] <= 1
        regions = report[stage]["regions"]
        assert sum(r["cycles"] for r in regions) == pytest.approx(report[stage]["cycles"])
    assert report["time_to_first_token_s"] == report["prefill"]["seconds"]


@pytest.mark.parametrize("accelerator, stage", [("u280-prefill", "prefill"),
                                                ("u280-decode", "decode")])
def test_a_card_for_one_stage(accelerator, stage):
    report = plan("--accelerator", accelerator)
    assert stage in report and len({"prefill", "decode"} & set(report)) == 1


def test_memory_traffic_is_what_the_model_weighs():
    report = plan("--batch", 1)
    weights = 16 * 2048 * (3072 + 2048 + 3 * 8192) / 2 + 2048 * 128256 / 2
    moved = sum(r["bytes"]["weights"] for r in report["decode"]["regions"])
    assert weights <= moved < 1.02 * weights  # and scales beside them
    cached = 16 * (1536.5 * 17 * 64)
    kv = sum(r["bytes"]["kv"] for r in report["decode"]["regions"])
    assert kv == pytest.approx(cached, rel=0.02)


def cycles(report, stage, region):
    return {r["region"]: r["cycles"] for r in report[stage]["regions"]}[region]


def test_each_matrix_of_a_mixed_scheme_counts_with_its_own_precision():
    low, high = (plan("--scheme", f"w{bits}g64a8kv8-lm8-r124") for bits in (4, 8))
    mixed = plan("--scheme",
                 "w4g64a8kv8-lm8-r124:0-2.down=w8g64a8,4.down=w8g64a8,15.qkv=w8g64a8")
    for stage in ("prefill", "decode"):
        for region, raised in (("q k v", 1), ("o", 0), ("gate up", 0), ("down", 4)):
            share = raised / 16
            expected = ((1 - share) * cycles(low, stage, region)
                        + share * cycles(high, stage, region))
            assert cycles(mixed, stage, region) == pytest.approx(expected), region
        for region in ("attention", "lm_head", "row results"):
            assert cycles(mixed, stage, region) == cycles(low, stage, region), region
    weights = [report["decode"]["bytes"]["weights"] for report in (low, mixed, high)]
    # Four more bits for every weight that was raised.
    raised = 2048 * (4 * 8192 + 3072) / 2
    assert weights[1] - weights[0] == pytest.approx(raised, rel=0.001)
    assert mixed["memory"]["weight_bytes_per_arena"] - low["memory"]["weight_bytes_per_arena"] == \
        pytest.approx(raised / 16, rel=0.001)
    assert low["decode"]["seconds"] < mixed["decode"]["seconds"] < high["decode"]["seconds"]
    assert mixed["decode"]["roofline_share"] <= 1


def test_exceptions_that_change_nothing_change_nothing():
    plain = plan("--scheme", "w4g64a8kv8-lm8")
    assert plan("--scheme", "w4g64a8kv8-lm8:3-5.o=w4g64a8") == plain
    everywhere = ",".join(f"0-15.{kind}=w4g64a8" for kind in ("qkv", "o", "gate_up", "down"))
    report = plan("--scheme", f"w8a8kv8-lm8:{everywhere}")
    for stage in ("prefill", "decode"):
        # But for the scales of lm_head.
        assert [r for r in report[stage]["regions"] if r["region"] != "lm_head"] == \
            [r for r in plain[stage]["regions"] if r["region"] != "lm_head"]


def test_a_spatial_composition_takes_mixed_schemes(tmp_path):
    def spatial(config):
        for kernel in config["kernels"].values():
            kernel["composition"] = "spatial"
            kernel["parallelism"].pop("panel", None)

    def enlarge(device):  # two more sets of arrays do not fit the card
        for slot in device["resources"]:
            slot.update({kind: 10 * slot[kind] for kind in KINDS})

    path = edited(tmp_path, spatial, "u280-paper", enlarge)
    low, mixed, high = (
        plan("--accelerator", path, "--scheme", scheme)
        for scheme in ("w4a8kv8-lm8", "w4a8kv8-lm8:0-3.o=w8a8", "w4a8kv8-lm8:0-15.o=w8a8"))
    for stage in ("prefill", "decode"):
        region = "attention, o"
        assert cycles(mixed, stage, region) == pytest.approx(
            0.75 * cycles(low, stage, region) + 0.25 * cycles(high, stage, region))
        assert [(r["region"], r["calls"]) for r in mixed[stage]["regions"]] == \
            [(r["region"], r["calls"]) for r in low[stage]["regions"]]


def test_a_scheme_may_stand_in_a_file(tmp_path):
    path = tmp_path / "scheme"
    path.write_text("w4g64a8kv8-lm8:0.o=w8g64a8,\n 7.o=w8g64a8\n")
    report = plan("--scheme", path)
    assert report["scheme"] == "w4g64a8kv8-lm8:0.o=w8g64a8,7.o=w8g64a8"


def test_a_batch_shares_the_weights():
    one, eight = plan("--batch", 1)["decode"], plan("--batch", 8)["decode"]
    assert eight["seconds"] < 4 * one["seconds"]
    assert eight["tokens_per_s"] > 2 * one["tokens_per_s"]
    assert eight["tokens"] == 8


def test_more_parallelism_is_faster_and_larger(tmp_path):
    def narrow(config):
        config["kernels"]["prefill"]["parallelism"]["tp"] = 8

    wide, small = plan(), plan("--accelerator", edited(tmp_path, narrow))
    assert wide["prefill"]["tokens_per_s"] > 1.3 * small["prefill"]["tokens_per_s"]
    assert wide["resources"]["dsp"] > small["resources"]["dsp"] + 500
    assert wide["decode"] == small["decode"]


@pytest.mark.parametrize("accelerator", ["u280-combined", "u280-paper", "u280-prefill",
                                         "u280-decode", "v80"])
def test_every_slot_is_within_the_budget(accelerator):
    config = json.loads((CONFIGS / f"accelerators/{accelerator}.json").read_text())
    device = json.loads((CONFIGS / f"devices/{config['device']}.json").read_text())
    resources = plan("--accelerator", accelerator)["resources"]
    slots = resources["slots"]
    assert [{"slot": s["slot"], "slr": s["slr"], **s["usable"]} for s in slots] == \
        device["resources"]
    for kind in KINDS:
        for slot in slots:
            assert slot["used"][kind] <= 0.75 * slot["usable"][kind] * (1 + 1e-6), slot["slot"]
        assert sum(s["used"][kind] for s in slots) == pytest.approx(resources[kind])
    for name, kernel in config["kernels"].items():
        placed = [s["pieces"].get(name, {}) for s in slots]
        bundles = {port["name"]: port.get("bundles") for port in kernel["ports"]}
        for unit, count in (("array", kernel["parallelism"]["bp"]), ("weight port", bundles["w"]),
                            ("KV engine", bundles["kv"]), ("hadamard", 1)):
            assert sum(pieces.get(unit, 0) for pieces in placed) == count, unit
    assert slots == plan("--accelerator", accelerator)["resources"]["slots"]


def test_a_slot_that_is_too_full_is_named(tmp_path):
    def shrink(device):
        for slot in device["resources"]:
            slot["dsp"] = slot["dsp"] * 9 // 10

    done = flexllm("--accelerator", edited(tmp_path, lambda config: None, edit_device=shrink))
    assert done.returncode == 3 and not done.stdout
    assert re.search(r"slot X[01]Y[0-2] would need \d+ DSP, \d+\.\d % .* may need 75\.0 %",
                     done.stderr)
    assert "kernels.*.parallelism" in done.stderr


def test_ports_lie_on_the_die_of_their_bank(tmp_path):
    def engines(path):
        resources = plan("--accelerator", path)["resources"]
        return resources["ports_on_another_die"], {
            slot["slr"] for slot in resources["slots"]
            if {"KV engine", "weight port"} & set(slot["pieces"].get("prefill", {}))}

    assert engines("u280-prefill") == (0, {"SLR0"})

    def move(device):
        device["memories"][0]["slr"] = "SLR2"

    moved = edited(tmp_path, lambda config: None, "u280-prefill", move)
    assert engines(moved) == (0, {"SLR2"})


def test_a_kernel_is_kept_on_the_die_that_its_configuration_names(tmp_path):
    def keep(config):
        config["kernels"]["prefill"]["slr"] = "SLR1"
        config["kernels"]["prefill"]["parallelism"]["tp"] = 8

    slots = plan("--accelerator", edited(tmp_path, keep, "v80"))["resources"]["slots"]
    assert {slot["slr"] for slot in slots if "prefill" in slot["pieces"]} == {"SLR1"}
    assert {slot["slr"] for slot in slots if "decode" in slot["pieces"]} >= {"SLR0", "SLR2"}

    def squeeze(config):
        config["kernels"]["prefill"]["slr"] = "SLR1"

    done = flexllm("--accelerator", edited(tmp_path, squeeze, "u280-prefill"))
    assert done.returncode == 3
    assert re.search(r"slot X[01]Y1 would need .*kernels\.\*\.slr", done.stderr)

    def lose(config):
        config["kernels"]["decode"]["slr"] = "SLR3"

    done = flexllm("--accelerator", edited(tmp_path, lose, "v80"))
    assert done.returncode == 2
    assert "kernels.decode.slr: device 'v80' has no slot on 'SLR3'" in done.stderr


def test_a_device_without_slots_is_refused(tmp_path):
    done = flexllm("--accelerator", edited(tmp_path, lambda config: None,
                                           edit_device=lambda d: d["resources"].clear()))
    assert done.returncode == 2 and "resources: names no slot" in done.stderr


@pytest.mark.parametrize("slr", [7, ["SLR0"], ["SLR0"] * 31 + [0]])
def test_a_wrong_die_of_a_memory_is_refused(tmp_path, slr):
    def edit(device):
        device["memories"][0]["slr"] = slr

    done = flexllm("--accelerator", edited(tmp_path, lambda config: None, edit_device=edit))
    assert done.returncode == 2 and "memories[0].slr: must be a die, or a list of 32" in done.stderr


@pytest.mark.parametrize("keys, value, words", [
    (("kernels", "prefill", "parallelism", "tp"), 12, ["parallelism.tp", "12 does not divide 16"]),
    (("kernels", "decode", "parallelism", "wp"), 100, ["parallelism.wp", "100"]),
    (("kernels", "decode", "parallelism", "bp"), 15, ["parallelism.bp", "15", "weight ports"]),
    (("kernels", "decode", "parallelism", "tp"), 16, ["slot X", "parallelism"]),
    (("banks", "w"), "HBM[0:40]", ["banks.w", "no bank HBM[32]"]),
    (("banks", "w"), "HBM[5:1]", ["banks.w", "names no bank"]),
    (("banks", "w"), "HBM(0)", ["banks.w", "is not a bank"]),
    (("maxima", "d"), 1024, ["d is 2048", "at most 1024"]),
    (("device"), "u281", ["u281"]),
    (("clock_mhz",), 0, ["clock_mhz", "above 0"]),
    (("kernels", "decode", "parallelism", "outputs"), None, ["outputs", "is missing"]),
])
def test_a_wrong_design_is_refused_by_its_field(tmp_path, keys, value, words):
    keys = (keys,) if isinstance(keys, str) else keys

    def edit(config):
        for key in keys[:-1]:
            config = config[key]
        if value is None:
            del config[keys[-1]]
        else:
            config[keys[-1]] = value

    done = flexllm("--accelerator", edited(tmp_path, edit))
    assert done.returncode in (2, 3)
    for word in words:
        assert word in done.stderr, done.stderr
    assert not done.stdout


def test_a_model_larger_than_the_card_is_refused():
    done = flexllm("--model", "llama-2-7b", "--scheme", "w8a8kv8-lm8")
    assert done.returncode == 3 and "banks.w" in done.stderr and "MiB" in done.stderr
    done = flexllm("--model", "llama-2-7b", "--batch", 16, "--prompt", 60000)
    assert done.returncode == 3 and "KV cache" in done.stderr and "banks.kv" in done.stderr


@pytest.mark.parametrize("options, words", [
    (("--model", "llama-9"), ["llama-9", "llama-3.2-1b"]),
    (("--accelerator", "u50"), ["u50", "u280-combined"]),
    (("--scheme", "w3"), ["w3", "not a scheme"]),
    (("--scheme", "w4a8kv8-lm8:16.o=w8a8"), ["--scheme", "layer 16", "16"]),
    (("--scheme", "w4a8kv8-lm8:0.lm=w8a8"), ["--scheme", "not an exception"]),
    (("--prompt", "0"), ["prompt"]),
    (("--batch", "17"), ["batch"]),
])
def test_wrong_options_are_usage_errors(options, words):
    done = flexllm(*options)
    assert done.returncode == 2
    for word in words:
        assert word in done.stderr


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "model.json"
    for text in ("", "[]", "{", '{"name": "m"}', '{"name": "m", "layers": -1}',
                 '{"name": "m", "layers": 1e99}'):
        path.write_text(text)
        done = flexllm("--model", path)
        assert done.returncode == 2 and str(path) in done.stderr


def test_the_drawing_is_well_formed_and_complete(tmp_path):
    path = tmp_path / "plan.svg"
    assert flexllm("--svg", path).returncode == 0
    tree = xml.etree.ElementTree.parse(path)
    words = " ".join(text.text or "" for text in tree.iter("{http://www.w3.org/2000/svg}text"))
    for word in ("prefill", "decode", "attention", "multiply", "modelled", "memory bank"):
        assert word in words
    done = flexllm("--svg", tmp_path / "none" / "plan.svg")
    assert done.returncode == 1 and "cannot write" in done.stderr


def test_the_search_finds_a_front_within_the_budget():
    report = plan("--explore", "--prompt", 512, "--generate", 128)
    front = report["front"]
    assert len(front) >= 3
    for faster, slower in zip(front, front[1:]):
        assert faster["prompt_seconds"] <= slower["prompt_seconds"]
        assert faster["decode_seconds"] > slower["decode_seconds"]
    assert all(design["resources"]["dsp"] <= 0.75 * 8304 for design in front)
    prompts = plan("--explore", "--prompt", 512, "--generate", 128, "--weight", 1)
    assert prompts["chosen"] == 0
    done = flexllm("--explore", "--accelerator", "u280-decode")
    assert done.returncode == 3 and "both kernels" in done.stderr
