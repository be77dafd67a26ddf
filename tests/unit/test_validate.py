from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loramux_adapters.errors import (
    ArtifactError,
    ConfigInvalid,
    OptionUnsupported,
    RankTooLarge,
    StorageFailed,
    WeightsCorrupt,
    WeightsMismatch,
    WeightsMissing,
    WeightsNotFinite,
    WeightsUnsafe,
)
from loramux_adapters.model import AdapterInfo, BaseModel
from loramux_adapters.validate import validate
from tests.fakes.adapter_files import (
    CONFIG,
    WEIGHTS,
    Tensors,
    adapter_files,
    safetensors_bytes,
    tiny_base,
    write_adapter,
    write_files,
)

BASE = tiny_base()
Q0 = "base_model.model.model.layers.0.self_attn.q_proj"


def check(directory: Path, *, max_rank: int | None = None, finite: bool = True) -> AdapterInfo:
    return validate(directory, BASE, max_rank=max_rank, check_finite=finite)


def check_config(tmp_path: Path, **config: Any) -> AdapterInfo:
    return check(write_adapter(tmp_path, BASE, config=config))


def check_tensors(tmp_path: Path, change: Any) -> AdapterInfo:
    def mutate(_config: dict[str, Any], tensors: Tensors) -> None:
        change(tensors)

    return check(write_adapter(tmp_path, BASE, mutate=mutate))


@pytest.mark.parametrize(("dtype", "name"), [("F32", "float32"), ("F16", "float16"), ("BF16", "bfloat16")])
def test_a_good_adapter_is_described(tmp_path: Path, dtype: str, name: str) -> None:
    info = check(write_adapter(tmp_path, BASE, dtype=dtype, rank=8, alpha=32))
    assert info == AdapterInfo(
        rank=8,
        alpha=32.0,
        target_modules=("q_proj", "v_proj"),
        dtype=name,
        parameters=2 * (8 * (32 + 32) + 8 * (32 + 16)),
    )


def test_every_layer_may_be_adapted(tmp_path: Path) -> None:
    kinds = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert check(write_adapter(tmp_path, BASE, targets=kinds)).target_modules == tuple(sorted(kinds))


def test_a_whole_adapter_of_peft_passes(tmp_path: Path) -> None:
    """What PEFT itself writes for a real, if tiny, Llama."""
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = peft.get_peft_model(
        transformers.LlamaForCausalLM(config),
        peft.LoraConfig(
            r=4, target_modules=["q_proj", "v_proj"], rank_pattern={r"layers\.1\..*q_proj": 8}, use_rslora=True
        ),
    )
    model.save_pretrained(tmp_path)
    assert check(tmp_path).rank == 8


# The rank.


def test_a_rank_above_the_engine_s_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RankTooLarge, match="rank 64, the engine serves at most 32") as caught:
        check(write_adapter(tmp_path, BASE, rank=64))
    assert caught.value.details == {"rank": 64, "max_rank": 32}


def test_a_rank_above_the_operator_s_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RankTooLarge):
        check(write_adapter(tmp_path, BASE, rank=16), max_rank=8)
    assert check(tmp_path, max_rank=16).rank == 16


def test_a_rank_pattern_counts_against_the_limit(tmp_path: Path) -> None:
    with pytest.raises(RankTooLarge):
        check_config(tmp_path, rank_pattern={"v_proj": 64})


def test_a_rank_pattern_decides_the_shapes(tmp_path: Path) -> None:
    def mutate(config: dict[str, Any], tensors: Tensors) -> None:
        config["rank_pattern"] = {r"layers\.1\.self_attn\.q_proj": 16, "proj": 8, "q_proj": 4}
        wide = "base_model.model.model.layers.1.self_attn.q_proj"
        tensors[f"{wide}.lora_A.weight"] = np.zeros((16, 32), np.float32)
        tensors[f"{wide}.lora_B.weight"] = np.zeros((32, 16), np.float32)
        narrow = Q0
        tensors[f"{narrow}.lora_A.weight"] = np.zeros((4, 32), np.float32)
        tensors[f"{narrow}.lora_B.weight"] = np.zeros((32, 4), np.float32)

    assert check(write_adapter(tmp_path, BASE, mutate=mutate)).rank == 16


# The weights.


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    write_adapter(tmp_path, BASE)
    (tmp_path / WEIGHTS).rename(tmp_path / "model.safetensors")
    with pytest.raises(WeightsMissing, match=r"model\.safetensors"):
        check(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(WeightsMissing):
        check(tmp_path)


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "a.pth", "a.ckpt", "a.PKL"])
def test_pickled_weights_are_refused(tmp_path: Path, name: str) -> None:
    write_adapter(tmp_path, BASE)
    (tmp_path / WEIGHTS).rename(tmp_path / name)
    with pytest.raises(WeightsUnsafe, match="pickle"):
        check(tmp_path)


def test_a_pickle_beside_the_weights_is_told_and_dropped(tmp_path: Path) -> None:
    write_adapter(tmp_path, BASE)
    (tmp_path / "training_args.bin").write_bytes(b"")
    assert "training_args.bin" in check(tmp_path).warnings[0]


def test_a_link_is_no_file_of_an_adapter(tmp_path: Path) -> None:
    write_adapter(tmp_path / "real", BASE)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / CONFIG).symlink_to(tmp_path / "real" / CONFIG)
    with pytest.raises(ConfigInvalid, match="missing"):
        check(tmp_path / "linked")


@pytest.mark.parametrize("cut", [1, 100, 20_000])
def test_truncated_weights_are_refused(tmp_path: Path, cut: int) -> None:
    write_adapter(tmp_path, BASE)
    content = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(content[:-cut])
    with pytest.raises(WeightsCorrupt):
        check(tmp_path)


def test_weights_of_another_dtype_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsMismatch, match="F64"):
        check(write_adapter(tmp_path, BASE, dtype="F64"))


def test_weights_without_lora_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsMismatch, match="no LoRA tensors"):
        check_tensors(tmp_path, lambda tensors: tensors.clear())


@pytest.mark.parametrize(
    "target", ["query_key_value", "c_attn", "proj", "layers", "model.layers.7.self_attn.q_proj", "self_attn"]
)
def test_a_target_module_that_the_base_lacks_is_refused(tmp_path: Path, target: str) -> None:
    with pytest.raises(WeightsMismatch, match=r"does not have; it has .*_proj") as caught:
        check_config(tmp_path, target_modules=["q_proj", target])
    assert target in caught.value.message


@pytest.mark.parametrize(
    "name",
    [
        f"{Q0}.lora_A.default.weight",
        f"{Q0}.lora_A",
        f"{Q0}.lora_C.weight",
        "model.layers.0.self_attn.q_proj.lora_A.weight",
        "base_model.model.lora_A.weight",
        "base_model.model..lora_A.weight",
        "",
        "lora_A.weight",
    ],
)
def test_a_tensor_that_is_not_named_as_peft_does_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsMismatch):
        check_tensors(tmp_path, lambda tensors: tensors.update({name: tensors[f"{Q0}.lora_A.weight"]}))


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.model.embed_tokens.base_layer.weight",
        "base_model.model.lm_head.weight",
        "base_model.model.lm_head.lora_A.weight",
        f"{Q0}.lora_magnitude_vector",
        f"{Q0}.lora_B.bias",
        "new_embeddings.weight",
    ],
)
def test_tensors_of_what_is_not_served_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionUnsupported):
        check_tensors(tmp_path, lambda tensors: tensors.update({name: np.zeros((8, 32), np.float32)}))


def test_new_embeddings_are_refused(tmp_path: Path) -> None:
    write_adapter(tmp_path, BASE)
    (tmp_path / "new_embeddings.safetensors").write_bytes(b"")
    with pytest.raises(OptionUnsupported, match="embeddings"):
        check(tmp_path)


def test_a_module_that_the_base_lacks_is_named(tmp_path: Path) -> None:
    def move(tensors: Tensors) -> None:
        for side in "AB":
            tensors[f"base_model.model.model.layers.9.self_attn.q_proj.lora_{side}.weight"] = tensors.pop(
                f"{Q0}.lora_{side}.weight"
            )

    with pytest.raises(WeightsMismatch, match=r"layers\.9\.self_attn\.q_proj.*it has model\.layers\.\d\."):
        check_tensors(tmp_path, move)


@pytest.mark.parametrize("side", ["A", "B"])
def test_half_a_pair_is_refused(tmp_path: Path, side: str) -> None:
    with pytest.raises(WeightsMismatch, match="other half"):
        check_tensors(tmp_path, lambda tensors: tensors.pop(f"{Q0}.lora_{side}.weight"))


@pytest.mark.parametrize(
    ("side", "shape"),
    [("A", (8, 33)), ("A", (4, 32)), ("A", (32, 8)), ("A", (256,)), ("B", (16, 8)), ("B", (32, 4)), ("B", (32, 8, 1))],
)
def test_a_shape_that_does_not_fit_is_refused(tmp_path: Path, side: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(WeightsMismatch, match=rf"lora_{side}.*shape.*needs"):
        check_tensors(tmp_path, lambda tensors: tensors.update({f"{Q0}.lora_{side}.weight": np.zeros(shape, "<f4")}))


def test_another_base_s_adapter_is_told_by_its_shapes(tmp_path: Path) -> None:
    write_adapter(tmp_path, tiny_base("other", hidden=64))
    with pytest.raises(WeightsMismatch, match="shape"):
        check(tmp_path)


def test_another_base_s_adapter_with_more_layers_is_refused(tmp_path: Path) -> None:
    write_adapter(tmp_path, tiny_base("other", layers=3))
    with pytest.raises(WeightsMismatch, match=r"layers\.2"):
        check(tmp_path)


def test_another_base_s_name_alone_is_a_warning(tmp_path: Path) -> None:
    info = check_config(tmp_path, base_model_name_or_path="somebody/finetuned-tiny")
    assert "somebody/finetuned-tiny" in info.warnings[0]


@pytest.mark.parametrize("name", [None, "", "tiny", "org/tiny", "/models/Tiny/"])
def test_the_base_s_own_name_is_no_warning(tmp_path: Path, name: str | None) -> None:
    assert check_config(tmp_path, base_model_name_or_path=name).warnings == ()


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_inf_are_refused(tmp_path: Path, dtype: str, value: float) -> None:
    name = f"{Q0}.lora_B.weight"

    def spoil(_config: dict[str, Any], tensors: Tensors) -> None:
        bits = {np.nan: 0x7FC0, np.inf: 0x7F80, -np.inf: 0xFF80}
        bf16 = next(b for v, b in bits.items() if v == value or (v != v and value != value))
        tensors[name][3, 3] = bf16 if dtype == "BF16" else value

    write_adapter(tmp_path, BASE, dtype=dtype, mutate=spoil)
    with pytest.raises(WeightsNotFinite, match=name):
        check(tmp_path)
    check(tmp_path, finite=False)


def test_the_largest_numbers_are_finite(tmp_path: Path) -> None:
    def largest(tensors: Tensors) -> None:
        tensors[f"{Q0}.lora_B.weight"][:] = np.finfo(np.float32).max

    check_tensors(tmp_path, largest)


def test_nan_beyond_the_first_chunk_is_found(tmp_path: Path) -> None:
    wide = BaseModel("wide", {"model.big": (300_000, 8)}, max_lora_rank=8, vocab_size=1)

    def spoil(_config: dict[str, Any], tensors: Tensors) -> None:
        tensors["base_model.model.model.big.lora_B.weight"][-1, -1] = np.nan

    write_adapter(tmp_path, wide, targets=["big"], mutate=spoil)
    with pytest.raises(WeightsNotFinite):
        validate(tmp_path, wide, max_rank=None, check_finite=True)


def test_a_directory_that_is_gone_is_the_disk_s_fault(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed):
        check(tmp_path / "gone")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_corruption_never_raises_anything_else(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    files = adapter_files(BASE, targets=["q_proj"])
    name = data.draw(st.sampled_from([CONFIG, WEIGHTS]))
    content = bytearray(files[name])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, min(len(content) - 1, 1200)))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    directory = write_files(tmp_path_factory.mktemp("adapter"), files | {name: bytes(content)})
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


def test_a_header_of_an_honest_library_is_the_builder_s(tmp_path: Path) -> None:
    """The builder of these tests writes what the safetensors library reads."""
    import safetensors.numpy

    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}
    assert np.array_equal(safetensors.numpy.load(safetensors_bytes(tensors))["a"], tensors["a"])
