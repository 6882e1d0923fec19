"""Measurement protocols under a config: they set what is not given, and what is given wins and is told."""

from __future__ import annotations

import pytest

from pythiageo.cli.app import run as cli
from pythiageo.config.protocols import KEYS, describe_protocol
from pythiageo.config.runs import AnalyzeConfig, make_config
from pythiageo.errors import UserError
from pythiageo.geometry.measure import get_measures
from pythiageo.geometry.readout import get_readouts
from pythiageo.probes.passages import Passages
from pythiageo.probes.task import get_task, load_tasks
from pythiageo.study.measurement_protocols import MEASUREMENT_PROTOCOLS


def config_of(*changes: str, **data: object) -> AnalyzeConfig:
    config = make_config({"name": "a", "target": "b", **data}, list(changes), "analyze", "a")
    assert isinstance(config, AnalyzeConfig)
    return config


@pytest.mark.parametrize("name", MEASUREMENT_PROTOCOLS)
def test_every_protocol_names_what_there_is(name: str) -> None:
    protocol = MEASUREMENT_PROTOCOLS[name]
    assert protocol.name == name
    config = config_of(protocol=name)
    assert get_measures(list(config.measures.geometry))
    assert get_readouts(list(config.measures.readouts))
    assert all(get_task(load_tasks(), task) for task in protocol.tasks)
    assert describe_protocol(config, name) == [f"measured under protocol {name}: {protocol.origin}", *protocol.differs]
    assert KEYS.keys() <= {field for field in vars(protocol)}
    # what a manifest keeps gives the same run again
    assert make_config(config.model_dump(mode="json"), [], "analyze", "again") == config


def test_li_2025_is_the_last_token_of_512_behind_the_final_layernorm() -> None:
    config = config_of(protocol="li-2025")
    assert config.probes.passages == Passages("truncate", 512)
    assert (config.measures.sites, config.measures.readouts) == (("ln_final.hook_out",), ("last/centred",))
    assert config.measures.geometry == ("covariance_effective_rank", "alpha_req")
    assert config.measures.alpha_range == (12, 100)


def test_what_is_given_wins_and_is_told() -> None:
    config = config_of('probes.tasks=["running-text"]', "probes.text_tokens=128", protocol="li-2025")
    assert config.probes.passages == Passages("truncate", 128)
    assert config.probes.tasks == ("running-text",)
    told = describe_protocol(config, "li-2025")
    assert [line for line in told if line.startswith("protocol ")] == [
        "protocol li-2025 has probes.tasks = fineweb, and this run running-text",
        "protocol li-2025 has probes.text_tokens = 512, and this run 128",
    ]
    assert config_of().probes.passages is None
    assert describe_protocol(config_of(), None) == []


def test_a_protocol_that_there_is_not_is_named_before_anything_is_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli(["analyze", "nobody/nothing", "--protocol", "li-2052", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert "unknown measurement protocol 'li-2052' (did you mean 'li-2025'?); there are " in error
    with pytest.raises(UserError, match="protocol: Input should be a valid string"):
        config_of(protocol=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["probes.text_tokens=64"], "text_tokens goes with long_texts: truncate, pack or stride"),
        (["probes.long_texts=pack", "probes.text_stride=4"], "text_stride goes with long_texts = 'stride'"),
        (["probes.long_texts=stride", "probes.text_stride=512"], "expected fewer than the 512 tokens of a passage"),
        (["probes.long_texts=windows"], "probes.long_texts: Input should be 'truncate', 'pack' or 'stride'"),
        (["measures.alpha_range=[12, 20]"], "expected a first and a last rank, ten ranks at least, got 12 and 20"),
    ],
)
def test_a_setting_that_cannot_be_is_named(changes: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config_of(*changes)
    assert config_of("probes.long_texts=stride").probes.passages == Passages("stride", 512, 256)
