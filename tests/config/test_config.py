"""Run configs: every shipped one is sound, every mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from pythiageo.config.options import overrides
from pythiageo.config.runs import AnalyzeConfig, TrainConfig, load_config, make_config
from pythiageo.config.tables import example_keys
from pythiageo.errors import UserError
from pythiageo.importers.mapping import load_mapping
from pythiageo.measurement.probe_sets import choose_probes
from pythiageo.runs.build_training import build_model, checkpoint_steps, resolve

CONFIGS = Path(__file__).parents[2] / "configs"
MAPPINGS = sorted(path.relative_to(CONFIGS) for path in (CONFIGS / "import").glob("*.toml"))
SHIPPED = sorted({path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.toml")} - set(MAPPINGS))
DEMO = CONFIGS / "demo" / "tasks.toml"


@pytest.mark.parametrize("path", SHIPPED, ids=str)
def test_every_shipped_config_is_sound(path: Path) -> None:
    import tomllib

    kind = tomllib.loads((CONFIGS / path).read_text())["kind"]
    config = load_config(path, [], kind)
    assert choose_probes(config.probes)
    if isinstance(config, TrainConfig):
        resolved = resolve(config)
        steps = checkpoint_steps(resolved)
        assert steps[0] == 0
        assert steps[-1] == resolved.training.stop
        build_model(resolved)


def test_one_option_sets_the_examples_of_scores_and_of_geometry(capsys: pytest.CaptureFixture[str]) -> None:
    from pythiageo.cli.app import run as cli

    few = ["analyze", "nobody/nothing", "--tasks", "ADD", "--dry-run", "--examples"]
    assert cli([*few, "0"]) == 2
    assert "probes.score_examples: Input should be greater than or equal to 1" in capsys.readouterr().err
    config = make_config({"name": "a", "target": "b"}, overrides(example_keys(7)), "analyze", "a")
    assert (config.probes.score_examples, config.probes.geometry_examples) == (7, 7)


@pytest.mark.parametrize("path", MAPPINGS, ids=str)
def test_every_shipped_mapping_is_sound(path: Path) -> None:
    assert {"series", "step", "value"} <= load_mapping(path).columns.keys()


def test_the_schedule_of_checkpoints_is_the_studys() -> None:
    config = load_config(CONFIGS / "nano.toml", [], "train")
    assert isinstance(config, TrainConfig)
    steps = checkpoint_steps(resolve(config))
    # the study counts 206: every 100 to 10K, every 500 to 50K, every 2,000 after, without step 0
    assert len([s for s in steps if s > 0]) == 100 + 80 + 25
    assert steps[-1] == 100_000


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("seed = 42", "sed = 42", r"unknown key 'sed' \(did you mean 'seed'\?\)"),
        ("stop = 1200", "stopp = 1200", r"unknown key 'training\.stopp' \(did you mean 'stop'\?\)"),
        ("[model]", "[modell]", r"'modell?'"),
        ("stop = 1200", "stop = 0", r"training\.stop: .*greater than or equal to 1"),
        ('source = "tasks"', 'source = "web"', r"data\.source: .*'tasks', 'text' or 'mix'.*'web'"),
        ('name = "demo-tasks"', 'name = "../escape"', "name: expected at most 128 letters, .* got '../escape'"),
        ('name = "demo-tasks"', "", "missing key 'name'"),
        ("[training]", '[compute]\ndevice = "mps"\n[training]', "compute.device: expected auto, .* got 'mps'"),
        (
            'kind = "train"',
            'kind = "analyze"',
            "kind is 'analyze', expected 'train': is this a config for another",
        ),
        ("seed = 42", "seed = ", "not a TOML file"),
    ],
)
def test_a_mistake_names_file_key_and_the_nearest(tmp_path: Path, before: str, after: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(DEMO.read_text().replace(before, after, 1))
    with pytest.raises(UserError, match=message) as caught:
        load_config(path, [], "train")
    assert "mine.toml" in str(caught.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UserError, match=r"demo/taks\.toml: no such config file, here or among pythiageo's own"):
        load_config(Path("demo/taks.toml"), [], "train")


def test_overrides_are_laid_over_and_checked() -> None:
    config = load_config(DEMO, ["training.stop=7", "model.size=micro", 'probes.tasks=["ADD"]', "seed=3"], "train")
    assert isinstance(config, TrainConfig)
    assert (config.training.stop, config.model.size, config.probes.tasks, config.seed) == (
        7,
        "micro",
        ("ADD",),
        3,
    )
    with pytest.raises(UserError, match=r"unknown key 'training\.steppes' \(did you mean 'steps'\?\)"):
        load_config(DEMO, ["training.steppes=7"], "train")
    with pytest.raises(UserError, match=r"--set training\.stop: expected KEY\.KEY=VALUE"):
        load_config(DEMO, ["training.stop"], "train")
    with pytest.raises(UserError, match="'seed' is a value, not a table"):
        load_config(DEMO, ["seed.more=1"], "train")


def test_unknown_size_task_and_level_are_met_with_the_nearest() -> None:
    def resolved(*overrides: str) -> TrainConfig:
        config = load_config(DEMO, list(overrides), "train")
        assert isinstance(config, TrainConfig)
        return resolve(config)

    with pytest.raises(UserError, match=r"no size 'nanno' \(did you mean 'nano'\?\)"):
        resolved("model.size=nanno")
    with pytest.raises(UserError, match=r"d_model 130 and heads 4 do not fit"):
        resolved("model.d_model=130")
    with pytest.raises(UserError, match=r"no task 'MODD' \(did you mean 'MOD'\?\)"):
        choose_probes(resolved('probes.tasks=["MODD"]').probes)
    with pytest.raises(UserError, match=r"task COPY has no level 'L9'"):
        choose_probes(resolved('probes.levels=["L1", "L9"]').probes)


def test_analyze_configs_have_their_own_keys(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('name = "x"\ntarget = "EleutherAI/pythia-160m"\nsteps = "log:12"\n')
    assert isinstance(load_config(path, [], "analyze"), AnalyzeConfig)
    path.write_text('name = "x"\ntarget = "EleutherAI/pythia-160m"\nstep = "log:12"\n')
    with pytest.raises(UserError, match=r"unknown key 'step' \(did you mean 'steps'\?\)"):
        load_config(path, [], "analyze")


def test_one_step_alone_may_be_a_number() -> None:
    keys = ["steps=128", "measures.landscape.steps=0"]
    config = make_config({"name": "a", "target": "t"}, keys, "analyze", "test")
    assert isinstance(config, AnalyzeConfig)
    assert (config.steps, config.measures.landscape.steps) == ("128", "0")
    with pytest.raises(UserError, match=r"measures\.landscape\.steps"):
        make_config({"name": "a", "target": "t"}, ["measures.landscape.steps=true"], "analyze", "test")
