"""What the scripts say when something is wrong, and that they trust no file that they did not check."""

import os
import pathlib
import shutil
import subprocess

SCRIPTS = pathlib.Path(__file__).parents[1]
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"


def run(name, *arguments, **environment):
    return subprocess.run(
        [SCRIPTS / name, *arguments], capture_output=True, text=True, check=False, cwd="/",
        env=os.environ | environment, timeout=300,
    )  # fmt: skip


def offline(cache):
    return {"FLEXLLM_CACHE": str(cache), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}


def test_model_prints_a_checked_file_at_once():
    result = run("model", FLEXLLM_CACHE=str(pathlib.Path(os.environ["FLEXLLM_DEFAULT_GGUF"]).parent))
    assert (result.returncode, result.stdout.strip()) == (0, os.environ["FLEXLLM_DEFAULT_GGUF"])
    assert result.stderr == ""


def test_model_does_not_trust_a_cut_file(tmp_path):
    whole = pathlib.Path(os.environ["FLEXLLM_DEFAULT_GGUF"])
    with open(whole, "rb") as source:
        (tmp_path / MODEL).write_bytes(source.read(1 << 20))
    result = run("model", **offline(tmp_path))
    assert result.returncode == 1 and result.stdout == ""
    assert "no network" in result.stderr


def test_model_says_that_there_is_no_network_and_leaves_nothing_behind(tmp_path):
    result = run("model", **offline(tmp_path))
    assert result.returncode == 1 and "no network" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    result = run("model", FLEXLLM_CACHE=str(tmp_path / "file" / "cache"))
    assert result.returncode == 1 and f"cannot write to {tmp_path}/file/cache" in result.stderr


def test_serve_leaves_sampling_defaults_to_the_environment(tmp_path):
    scripts = tmp_path / "scripts"
    program = tmp_path / "build" / "release" / "flexllm"
    for folder in (scripts, program.parent):
        folder.mkdir(parents=True)
    for name in ("serve", "common.sh"):
        shutil.copy(SCRIPTS / name, scripts)
    variables = '"${FLEXLLM_DEFAULT_TEMPERATURE-unset} ${FLEXLLM_DEFAULT_TOP_P-unset}"'
    for path, line in ((scripts / "build", "exit 0"), (scripts / "model", "echo default.gguf"),
                       (program, f'echo {variables} "$@"')):
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    def serve(*arguments, **variables):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("FLEXLLM_")}
        return subprocess.run(
            [scripts / "serve", *arguments], capture_output=True, text=True, check=True,
            env=environment | variables, timeout=60,
        ).stdout.strip()  # fmt: skip

    assert serve("--port", "1") == "0.2 0.9 serve --model default.gguf --port 1"
    assert serve(FLEXLLM_DEFAULT_TEMPERATURE="1") == "1 0.9 serve --model default.gguf"
    assert serve(FLEXLLM_DEFAULT_TOP_P="0.5") == "0.2 0.5 serve --model default.gguf"
    assert serve("--model", "m") == "unset unset serve --model m"


def test_unknown_options_are_refused():
    for name in ("test", "setup"):
        result = run(name, "--bogus")
        assert result.returncode != 0 and "unknown option --bogus" in result.stderr
    assert "no preset 'bogus'" in run("build", "bogus").stderr
