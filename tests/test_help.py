"""The command line of train.py tells every flag of every core and readout, and whose a flag is."""

import dataclasses

import pytest

from viv1t.cli import switch
from viv1t.model.options import CORES, READOUTS, ShifterConfig
from viv1t.training.config import PARTS, RATES, TrainConfig, TrainParser, default_rates


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """A terminal in which no line is broken."""
    monkeypatch.setenv("COLUMNS", "1000")


def help_of(*flags: str, capsys) -> str:
    with pytest.raises(SystemExit) as left:
        TrainParser("Train.").parse_args([*flags, "--help"])
    assert left.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def error_of(*flags: str, capsys) -> str:
    with pytest.raises(SystemExit) as left:
        TrainParser("Train.", prog="train.py").parse_args(flags)
    assert left.value.code == 2
    said = capsys.readouterr()
    assert not said.out and said.err.count("\n") == 1
    return said.err


def told(config: type, prefix: str, text: str) -> None:
    """Each flag of a part, with its help and default."""
    for field in dataclasses.fields(config):
        assert f"--{prefix}{field.name} " in text
        assert " ".join(field.metadata["help"].split()) in text
        kind, default = field.metadata["type"], field.default
        if not field.metadata["flag"] and prefix != "shifter_" and field.name not in default_rates("vivit", {}):
            default = "none" if default is None else int(default) if kind is switch else default
            assert f"(default: {default})" in text


@pytest.mark.parametrize("core", CORES)
def test_help_tells_every_flag_of_a_core(core, capsys):
    text = help_of("--core", core, capsys=capsys)
    told(CORES[core], "core_", text)
    assert f"core {core}:" in text or not dataclasses.fields(CORES[core])
    for rate, value in default_rates(core, {}).items():
        assert f"(default: {value} for {core})" in text, rate


@pytest.mark.parametrize("readout", READOUTS)
def test_help_tells_every_flag_of_a_readout(readout, capsys):
    text = help_of("--readout", readout, capsys=capsys)
    told(READOUTS[readout], "readout_", text)
    told(ShifterConfig, "shifter_", text)
    assert ("since this readout reads no positions" in text) != READOUTS[readout].local
    for part in PARTS.values():
        told(part, "", text)


def test_plain_help_tells_which_cores_and_readouts_there_are(capsys):
    text = help_of(capsys=capsys)
    for table in (CORES, READOUTS):
        for name, config in table.items():
            assert f"{name} {config.__doc__.splitlines()[0]}" in text
    assert "--core NAME --readout NAME --help" in text


def test_defaults_are_those_of_the_options():
    for core in CORES:
        for readout in READOUTS:
            args = vars(TrainParser("Train.").parse_args(["--output_dir", "x", "--core", core, "--readout", readout]))
            model = TrainConfig.from_flags(args).model
            assert (model.core_config, model.readout_config) == (CORES[core](), READOUTS[readout]())
            assert (model.shifter_config.mode != "none") == READOUTS[readout].local


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--core fcnn --core_emb_dim 8", "flag of --core vivit, v1t, bvivit; this is --core fcnn."),
        ("--core_mlp_dim=8", "--core_mlp_dim is a flag of --core v1t; this is --core vivit."),
        ("--readout conv --readout_grid_mode xy", "of --readout gaussian, depth-gaussian; this is --readout conv."),
        ("--core random --core_behavior_mode none", "this is --core random."),
        ("--core_mlpdim 8", "unknown argument --core_mlpdim; did you mean '--core_mlp_dim'?"),
        ("--readout_group 2", "did you mean '--readout_groups'?"),
        ("--batchsize 2", "did you mean '--batch_size'?"),
        ("--core vit", "--core vit is unknown; did you mean 'vivit'?"),
        ("--readout gausian", "--readout gausian is unknown; did you mean 'gaussian'?"),
    ],
)  # fmt: skip
def test_a_flag_of_something_else_is_told_in_one_line(flags, says, capsys):
    assert says in error_of(*flags.split(), capsys=capsys)


def test_a_preset_is_held_to_the_same(tmp_path, capsys):
    preset = tmp_path / "preset.txt"
    preset.write_text("--core=v1t  # static\n--core_ff_dim=3\n")
    assert "--core_ff_dim is a flag of --core vivit, bvivit; this is --core v1t." in error_of(
        f"@{preset}", capsys=capsys
    )


@pytest.mark.parametrize("core", CORES)
def test_a_core_without_its_own_published_rate_follows_the_learning_rate(core):
    own = core in RATES and RATES[core][0] != RATES[core][1]
    rates = default_rates(core, {"lr": 0.5})
    assert (rates["core_lr"] == 0.5) != own
    if core == "bvivit":
        assert default_rates(core, {}) == {
            "lr": 0.0036, "core_lr": 0.0048, "weight_decay": 0.3939, "core_weight_decay": 0.1789,
        }  # fmt: skip


def test_a_choice_by_word_or_code_is_the_same():
    """Codes are those of the published commands."""
    for core, code, word in (("v1t", "4", "behavior_pupil_mlp"), ("bvivit", "3", "behavior_cross")):
        args = TrainParser("Train.").parse_args(["--core", core, "--core_behavior_mode", code])
        assert args.core_behavior_mode == word
    with pytest.raises(SystemExit):
        TrainParser("Train.").parse_args(["--core", "linear", "--core_behavior_mode", "3"])
