"""What LMI's and TGI's variables ask for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramux_adapters.errors import SettingsInvalid
from loramux_serving.foreign.names import DEMANDS, PASSED_ON, UNUSED, VARIABLES, Variable
from loramux_serving.foreign.settings import asked_settings, differences
from loramux_serving.foreign.values import EVERY_ACCELERATOR
from loramux_serving.settings import EngineSettings, Settings, value_at
from loramux_serving.settings_sources import load

NOTEBOOK = {
    "HF_MODEL_ID": "meta-llama/Llama-3.1-8B-Instruct",
    "OPTION_ROLLING_BATCH": "lmi-dist",
    "OPTION_MAX_ROLLING_BATCH_SIZE": "16",
    "OPTION_TENSOR_PARALLEL_DEGREE": "max",
    "OPTION_ENABLE_LORA": "true",
    "OPTION_MAX_LORAS": "70",
    "OPTION_MAX_CPU_LORAS": "70",
    "OPTION_DTYPE": "fp16",
    "OPTION_MAX_MODEL_LEN": "6000",
    "HF_TOKEN": "hf_secret",
}


def test_the_environment_of_an_lmi_container() -> None:
    asked = asked_settings(NOTEBOOK)

    assert asked.settings == {
        "engine.model": "meta-llama/Llama-3.1-8B-Instruct",
        "engine.max_num_seqs": 16,
        "engine.tensor_parallel_size": EVERY_ACCELERATOR,
        "engine.max_loras": 70,
        "engine.max_cpu_loras": 70,
        "engine.dtype": "float16",
        "engine.max_model_len": 6000,
    }
    assert asked.remarks == ()


def test_the_environment_of_a_tgi_container() -> None:
    asked = asked_settings(
        {
            "MODEL_ID": "s3://bucket/models/base/",
            "REVISION": "main",
            "NUM_SHARD": "2",
            "DTYPE": "bfloat16",
            "MAX_INPUT_LENGTH": "1024",
            "MAX_TOTAL_TOKENS": "2048",
            "MAX_BATCH_SIZE": "8",
            "MAX_CONCURRENT_REQUESTS": "64",
            "PORT": "80",
            "HOSTNAME": "0.0.0.0",
            "CUDA_MEMORY_FRACTION": "0.8",
        }
    )

    assert asked.settings == {
        "engine.model": "s3://bucket/models/base",
        "engine.revision": "main",
        "engine.tensor_parallel_size": 2,
        "engine.dtype": "bfloat16",
        "engine.max_prompt_tokens": 1024,
        "engine.max_model_len": 2048,
        "engine.max_num_seqs": 8,
        "admission.max_requests": 64,
        "port": 80,
        "host": "0.0.0.0",
        "engine.gpu_memory_utilization": 0.8,
    }


@pytest.mark.parametrize("variable", VARIABLES, ids=lambda variable: variable.name)
def test_every_variable_reads_what_its_setting_takes(variable: Variable) -> None:
    given = {
        "engine.max_cpu_loras": "32",
        "engine.max_lora_rank": "16",
        "engine.dtype": "fp16",
        "engine.enforce_eager": "1",
        "host": "::1",
    }
    read = variable.read(given.get(variable.setting, "1"))
    section, _, last = variable.setting.rpartition(".")
    made = load(**{section: {last: read}} if section else {last: read}).settings

    assert value_at(made, variable.setting) == read
    assert type(read) is not bool or variable.setting == "engine.enforce_eager"


@given(st.dictionaries(st.sampled_from([known.name for known in (*VARIABLES, *DEMANDS, *UNUSED)]), st.text()))
def test_whatever_is_given_is_read_or_refused(environment: dict[str, str]) -> None:
    try:
        asked = asked_settings(environment)
    except SettingsInvalid:
        return
    for asking in asked.askings:
        assert environment[asking.variable.name].strip() == asking.given
    assert all(sentence.endswith(".") for sentence in differences(asked, settings(), "tiny"))


def test_no_name_is_there_twice() -> None:
    names = [known.name for known in (*VARIABLES, *DEMANDS, *UNUSED)] + list(PASSED_ON)
    assert len(names) == len(set(names))


def test_the_names_of_shells_containers_and_other_programs_are_left_alone() -> None:
    asked = asked_settings({"HOSTNAME": "web-7f9c", "DTYPE": "f64", "REVISION": "3f2a", "NUM_SHARD": "x", "PORT": " "})

    assert asked == asked_settings({})
    assert asked_settings({"HOSTNAME": "::1"}).settings == {"host": "::1"}


def test_general_names_count_beside_a_model() -> None:
    with pytest.raises(SettingsInvalid, match="DTYPE=f64"):
        asked_settings({"MODEL_ID": "org/base", "DTYPE": "f64"})


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"OPTION_MAX_LORAS": "many"}, "OPTION_MAX_LORAS=many is not possible: it must be a whole number from 1."),
        ({"OPTION_MAX_LORAS": "0"}, "OPTION_MAX_LORAS=0"),
        ({"OPTION_MAX_LORAS": "-3"}, "OPTION_MAX_LORAS=-3"),
        ({"OPTION_MAX_LORAS": "٣"}, "OPTION_MAX_LORAS"),
        ({"OPTION_MAX_LORA_RANK": "48"}, "OPTION_MAX_LORA_RANK=48 is not possible: it must be one of 1, 8, 16"),
        ({"OPTION_DTYPE": "int8"}, "OPTION_DTYPE=int8"),
        ({"OPTION_ROLLING_BATCH": "trtllm"}, "OPTION_ROLLING_BATCH=trtllm is not possible: it must be auto, vllm"),
        ({"OPTION_ENABLE_LORA": "false"}, "OPTION_ENABLE_LORA=false is not possible: it must be true, since loramux"),
        ({"OPTION_ENABLE_LORA": "perhaps"}, "OPTION_ENABLE_LORA=perhaps"),
        ({"OPTION_TENSOR_PARALLEL_DEGREE": "all"}, "a whole number from 1, or max"),
        ({"OPTION_GPU_MEMORY_UTILIZATION": "90"}, "OPTION_GPU_MEMORY_UTILIZATION=90"),
        ({"OPTION_GPU_MEMORY_UTILIZATION": "nan"}, "OPTION_GPU_MEMORY_UTILIZATION=nan"),
        ({"OPTION_ENFORCE_EAGER": "maybe"}, "OPTION_ENFORCE_EAGER=maybe is not possible: it must be true or false"),
        ({"PORT": "tcp://10.0.0.1:80"}, "PORT=tcp"),
        ({"PORT": "65536"}, "PORT=65536"),
    ],
)
def test_a_value_that_can_not_be_read_is_named(environment: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        asked_settings(environment)
    assert words in refused.value.message
    assert refused.value.message.endswith(".")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"HF_MODEL_ID": "a/b", "MODEL_ID": "a/c"}, "HF_MODEL_ID=a/b and MODEL_ID=a/c contradict each other"),
        (
            {"OPTION_MAX_MODEL_LEN": "4096", "MAX_TOTAL_TOKENS": "2048"},
            "OPTION_MAX_MODEL_LEN=4096 and MAX_TOTAL_TOKENS=2048 contradict each other: both set engine.max_model_len",
        ),
        ({"TENSOR_PARALLEL_DEGREE": "2", "SM_NUM_GPUS": "4"}, "TENSOR_PARALLEL_DEGREE=2 and SM_NUM_GPUS=4"),
        (
            {"MAX_INPUT_TOKENS": "2048", "MAX_TOTAL_TOKENS": "2048"},
            "MAX_INPUT_TOKENS=2048 must be below MAX_TOTAL_TOKENS=2048",
        ),
        (
            {"OPTION_MAX_CPU_LORAS": "4", "OPTION_MAX_LORAS": "8"},
            "OPTION_MAX_CPU_LORAS=4 must be at least OPTION_MAX_LORAS=8",
        ),
    ],
)
def test_a_contradiction_names_both(environment: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        asked_settings(environment | {"HF_TOKEN": "hf_secret"})
    assert words in refused.value.message
    assert "secret" not in refused.value.message


def test_those_that_agree_are_fine() -> None:
    environment = {"HF_MODEL_ID": "/opt/base", "OPTION_MODEL_ID": "/opt/base/", "OPTION_DTYPE": "bf16"}
    assert asked_settings(environment).settings == {"engine.model": "/opt/base", "engine.dtype": "bfloat16"}


def test_what_is_for_another_kind_of_engine_is_remarked_and_contradicts_nothing() -> None:
    environment = {"HF_AUTO_CAST_TYPE": "bf16", "HF_NUM_CORES": "2", "OPTION_DTYPE": "fp16"}

    asked = asked_settings(environment, "cuda")
    assert asked.settings == {"engine.dtype": "float16"}
    assert [str(remark) for remark in asked.remarks] == [
        "HF_AUTO_CAST_TYPE is not used: it is for neuron, and engine.kind is cuda.",
        "HF_NUM_CORES is not used: it is for neuron, and engine.kind is cuda.",
    ]
    with pytest.raises(SettingsInvalid, match="HF_AUTO_CAST_TYPE=bf16"):
        asked_settings(environment, "neuron")
    del environment["OPTION_DTYPE"]
    assert asked_settings(environment, "neuron").settings == {
        "engine.dtype": "bfloat16",
        "engine.tensor_parallel_size": 2,
    }


def test_what_does_nothing_is_remarked_without_its_value() -> None:
    asked = asked_settings(
        {
            "MODEL_ID": "a/b",
            "API_KEY": "sesame",
            "OPTION_ENTRYPOINT": "sesame.py",
            "OPTION_MAX_LORA": "3",
            "OPTION_X": "",
        }
    )
    told = {remark.variable: remark.reason for remark in asked.remarks}

    assert list(told) == ["OPTION_ENTRYPOINT", "API_KEY", "OPTION_MAX_LORA"]
    assert "did you mean OPTION_MAX_LORAS?" in told["OPTION_MAX_LORA"]
    assert "sesame" not in repr(asked.remarks)
    (remark,) = asked_settings({"OPTION_QQQ": "1"}).remarks
    assert remark.reason == "loramux does not know it; if it is an argument of vLLM, give it in engine.extra_args"


def settings(**engine: object) -> Settings:
    return Settings(engine=EngineSettings.model_validate(engine))


def test_a_fleet_that_has_as_much_or_more_fits() -> None:
    running = settings(
        model="/models/Llama-3.1-8B-Instruct",
        max_loras=80,
        max_cpu_loras=100,
        dtype="float16",
        max_model_len=8192,
        tensor_parallel_size=4,
    )
    environment = NOTEBOOK | {"PORT": "80", "OPTION_GPU_MEMORY_UTILIZATION": "0.5", "HF_MODEL_REVISION": "main"}

    assert differences(asked_settings(environment), running, "Llama-3.1-8B-Instruct") == []


def test_what_does_not_fit_is_told_in_a_sentence_each() -> None:
    told = differences(asked_settings(NOTEBOOK), settings(max_loras=8), "SmolLM2-135M-Instruct")

    assert told == [
        "HF_MODEL_ID=meta-llama/Llama-3.1-8B-Instruct asks for another engine.model than the running fleet's, which is "
        "SmolLM2-135M-Instruct.",
        "OPTION_MAX_LORAS=70 asks for another engine.max_loras than the running fleet's, which is 8.",
        "OPTION_MAX_CPU_LORAS=70 asks for another engine.max_cpu_loras than the running fleet's, which is 32.",
        "OPTION_DTYPE=fp16 asks for another engine.dtype than the running fleet's, which is auto.",
    ]


@pytest.mark.parametrize(
    ("wanted", "running", "base", "same"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "", "SmolLM2-135M-Instruct", True),
        ("/opt/ml/model", "org/base", "base", True),
        ("org/base", "org/base", "mine", True),
        ("org/base", "/models/base", "mine", True),
        ("mine", "/models/base", "mine", True),
        ("s3://bucket/models/base/", "/models/base", "base", True),
        ("s3://bucket/models/base", "s3://other/models/base", "base", False),
        ("other/base", "org/base", "base", False),
        ("/elsewhere/base", "/models/base", "base", False),
        ("org/other", "", "SmolLM2-135M-Instruct", False),
    ],
)
def test_which_base_is_the_same(wanted: str, running: str, base: str, same: bool) -> None:
    found = differences(asked_settings({"HF_MODEL_ID": wanted}), settings(model=running), base)
    assert (found == []) is same


def test_a_revision_matters_for_a_base_from_the_hub() -> None:
    asked = asked_settings({"HF_MODEL_ID": "org/base", "HF_MODEL_REVISION": "v2"})
    assert len(differences(asked, settings(model="org/base", revision="v1"), "base")) == 1
    assert differences(asked, settings(model="org/base", revision="v2"), "base") == []
