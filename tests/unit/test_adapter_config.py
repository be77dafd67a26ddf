"""Which `adapter_config.json` passes validation."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loramux_adapters.errors import ArtifactError, ConfigInvalid, OptionUnsupported
from loramux_adapters.model import AdapterInfo
from loramux_adapters.validate import validate
from tests.fakes.adapter_files import CONFIG, adapter_files, tiny_base, write_adapter, write_files

BASE = tiny_base()


def check(directory: Path) -> AdapterInfo:
    return validate(directory, BASE, max_rank=None, check_finite=True)


def check_config(tmp_path: Path, **config: Any) -> AdapterInfo:
    return check(write_adapter(tmp_path, BASE, config=config))


def test_a_missing_config_is_refused(tmp_path: Path) -> None:
    write_adapter(tmp_path, BASE)
    (tmp_path / CONFIG).unlink()
    with pytest.raises(ConfigInvalid, match=r"adapter_config\.json is missing"):
        check(tmp_path)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"not json", b'{"r": NaN}', b"\xff\xfe", b"[" * 100_000, b'{"a": "\\ud800"}', b"1" * 5000]
)
def test_a_config_that_is_not_json_is_refused(tmp_path: Path, text: bytes) -> None:
    write_adapter(tmp_path, BASE)
    (tmp_path / CONFIG).write_bytes(text)
    with pytest.raises(ConfigInvalid, match="JSON"):
        check(tmp_path)


@pytest.mark.parametrize("text", [b"[]", b"1", b"null", b'"LORA"'])
def test_a_config_that_is_no_object_is_refused(tmp_path: Path, text: bytes) -> None:
    write_adapter(tmp_path, BASE)
    (tmp_path / CONFIG).write_bytes(text)
    with pytest.raises(ConfigInvalid, match="object"):
        check(tmp_path)


def test_an_endless_config_is_refused(tmp_path: Path) -> None:
    write_adapter(tmp_path, BASE)
    (tmp_path / CONFIG).write_bytes(b'{"a": "' + b"x" * (2 << 20) + b'"}')
    with pytest.raises(ConfigInvalid, match="more than"):
        check(tmp_path)


@pytest.mark.parametrize("peft_type", ["IA3", "PREFIX_TUNING", "lora ", None, ..., 1])
def test_a_peft_type_other_than_lora_is_refused(tmp_path: Path, peft_type: Any) -> None:
    with pytest.raises(ConfigInvalid, match="peft_type"):
        check_config(tmp_path, peft_type=peft_type)


@pytest.mark.parametrize("key", ["r", "lora_alpha", "target_modules"])
def test_a_missing_option_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigInvalid, match=f"lacks {key}"):
        check_config(tmp_path, **{key: ...})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("r", "8"),
        ("r", 8.0),
        ("r", True),
        ("r", 0),
        ("r", -8),
        ("lora_alpha", "16"),
        ("lora_alpha", True),
        ("lora_alpha", 10**400),
        ("lora_alpha", 1e300),
        ("target_modules", []),
        ("target_modules", 7),
        ("target_modules", ["q_proj", 7]),
        ("target_modules", {"q_proj": 1}),
        ("target_modules", ["q_proj\n"]),
        ("target_modules", ["q_proj"] * 5000),
        ("rank_pattern", [8]),
        ("rank_pattern", {"q_proj": "8"}),
        ("rank_pattern", {"q_proj": 0}),
        ("rank_pattern", {"q_proj": True}),
        ("rank_pattern", {"(a+)+": 8}),
        ("rank_pattern", {"(": 8}),
        ("rank_pattern", {".*.*.*": 8}),
        ("rank_pattern", {f".*{index}": 8 for index in range(33)}),
        ("alpha_pattern", {"q_proj": "8"}),
        ("alpha_pattern", {"(.*)*": 8}),
        ("base_model_name_or_path", 7),
        ("init_lora_weights", 7),
    ],
)
def test_a_config_of_wrong_types_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(ConfigInvalid, match=key.split("_")[-1]):
        check_config(tmp_path, **{key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_dora", True),
        ("lora_bias", True),
        ("bias", "all"),
        ("bias", "lora_only"),
        ("modules_to_save", ["lm_head"]),
        ("modules_to_save", ["score"]),
        ("trainable_token_indices", [1, 2]),
        ("trainable_token_indices", {"embed_tokens": [1]}),
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", "pissa_niter_16"),
        ("init_lora_weights", "olora"),
        ("init_lora_weights", "corda"),
        ("init_lora_weights", "loftq"),
        ("alora_invocation_tokens", [1, 2]),
        ("layer_replication", [[0, 2], [1, 2]]),
        ("use_bdlora", {"nblocks": 2}),
        ("use_qalora", True),
        ("target_parameters", ["mlp.experts.gate_up_proj"]),
        ("megatron_config", {"a": 1}),
        ("arrow_config", {"top_k": 1}),
        ("kasa_config", {"beta": 1}),
        ("monteclora_config", {"a": 1}),
        ("target_modules", ["q_proj", "lm_head"]),
        ("target_modules", ["embed_tokens"]),
    ],
)
def test_an_option_that_is_not_served_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(OptionUnsupported, match=key):
        check_config(tmp_path, **{key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("init_lora_weights", "gaussian"),
        ("init_lora_weights", "eva"),
        ("init_lora_weights", False),
        ("use_rslora", True),
        ("bias", None),
        ("modules_to_save", []),
        ("target_modules", "all-linear"),
        ("target_modules", ".*(q|v)_proj"),
        ("target_modules", ["model.layers.0.self_attn.q_proj", "v_proj", "self_attn.k_proj"]),
        ("alpha_pattern", {"q_proj": 4, r"layers\.\d+\.self_attn\.v_proj": 2.5}),
        ("velora_config", {"a": 1}),
        ("future_option", {"a": 1}),
    ],
)
def test_an_option_that_is_served_passes(tmp_path: Path, key: str, value: Any) -> None:
    check_config(tmp_path, **{key: value})


OPTION = st.sampled_from(["r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern", "bias", "peft_type"])
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(OPTION, VALUE, min_size=1, max_size=3))
def test_made_up_options_never_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, options: dict[str, Any]
) -> None:
    directory = tmp_path_factory.mktemp("adapter")
    files = adapter_files(BASE, targets=["q_proj"])
    config = json.loads(files[CONFIG]) | options
    write_files(directory, files | {CONFIG: json.dumps(config).encode()})
    assert_orderly(directory)


def assert_orderly(directory: Path) -> None:
    """It passes within the limits, or is refused in printable words by an error that blames the adapter."""
    try:
        info = check(directory)
    except ArtifactError as error:
        text = error.message
    else:
        text = "".join(info.warnings)
        assert 1 <= info.rank <= BASE.max_lora_rank
    assert text.isprintable()
