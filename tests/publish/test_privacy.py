"""What is published names nothing of the machine, whatever its folders and hosts are called."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import planted
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythiageo.errors import UserError
from pythiageo.observations.excerpt import excerpt
from pythiageo.observations.manifest import without_mistakes
from pythiageo.observations.privacy import clean, clean_values, find_places
from pythiageo.observations.store import write_whole
from pythiageo.publish import write_bundle

MARK = "qzx"
"""In every name that must not be published; nothing of ours holds it."""
WORD = st.text("abcdefghijklmnopqrstuvwyzABCDEFG0123456789", min_size=1, max_size=6)
ODD = st.text("abé猫 .-_+@#()'&,;:=!~%", max_size=5)
FOLDER = st.builds(lambda a, odd, b: f"{a}{MARK}{odd}{MARK}{b}", WORD, ODD, WORD)
FOLDERS = st.lists(FOLDER, min_size=1, max_size=4)
NAME = st.sampled_from(["model.safetensors", "step1000", "config.json", "part 2.bin"])
BEFORE = st.sampled_from(["", "opened ", "step5: ", "cannot read ", "[Errno 2] no such file: ", "(", "path="])
AFTER = st.sampled_from(["", " is damaged", ": expected JSON", " (os error 2)", "; line 3", ", and 2 others"])
ROOT = st.sampled_from(["/", "~/", "../", "//", "C:\\", "d:/", "\\\\", "nas01.qzx:/"])


def path_of(root: str, folders: list[str], name: str) -> str:
    return root + ("\\" if "\\" in root else "/").join([*folders, name])


@given(BEFORE, ROOT, FOLDERS, NAME, AFTER)
def test_folders_are_taken_out_of_sentences(before: str, root: str, folders: list[str], name: str, after: str) -> None:
    assert MARK not in clean(f"{before}{path_of(root, folders, name)}{after}")


@given(BEFORE, ROOT, FOLDERS, NAME, AFTER)
def test_folders_are_taken_out_of_quotes_and_the_sentence_stays(
    before: str, root: str, folders: list[str], name: str, after: str
) -> None:
    said = clean(f'{before}"{path_of(root, folders, name)}"{after}')
    assert said == f'{before}"{name}"{after}'
    assert MARK not in clean(f"{before}{path_of(root, folders, name)!r}{after}")


@given(FOLDERS, st.sampled_from(["/", "C:\\"]), AFTER)
def test_what_is_known_to_be_of_the_machine_is_taken_out_whatever_it_is_called(
    folders: list[str], root: str, after: str
) -> None:
    place = path_of(root, folders, f"runs\n'of' {MARK}/ now").replace("/ now", " now")
    last = path_of("", [place], "model.safetensors") if root == "/" else f"{place}\\model.safetensors"
    said = clean(f"step5: {last}{after}", [place])
    assert MARK not in said
    assert "model.safetensors" in said


HOST = st.builds(
    lambda a, b: f"{a}{MARK}{b}", st.sampled_from(["gpu-", "ip-10-0-0-", "n"]), st.sampled_from(["1", "07"])
)
INTERNAL = st.builds(
    lambda host, end: f"{host}.{end}", HOST,
    st.sampled_from(["corp", "internal", "lan", "svc.cluster.local", "company.com", "uni-x.de", "huggingface.co.corp"]),
)  # fmt: skip
URL = st.builds(
    lambda scheme, user, host, port, path, query: f"{scheme}://{user}{host}{port}/{path}{query}",
    st.sampled_from(["http", "https", "s3", "file", "ftp", "socks5"]), st.sampled_from(["", f"{MARK}:{MARK}@"]),
    INTERNAL, st.sampled_from(["", ":8443"]), st.sampled_from([MARK, f"a/{MARK}/b.bin", f"a%20{MARK}"]),
    st.sampled_from(["", f"?Signature={MARK}&Expires=1", f"?token={MARK}", f"#{MARK}"]),
)  # fmt: skip


@given(BEFORE, URL, AFTER)
def test_addresses_are_taken_out(before: str, url: str, after: str) -> None:
    assert MARK not in clean(f"{before}{url}{after}")
    assert MARK not in clean(f"{before}'{url}'{after}")


@given(INTERNAL | HOST, st.integers(10, 65535))
def test_hosts_are_taken_out(host: str, port: int) -> None:
    for said in (f"cannot reach {host}:{port}", f"host='{host}', port={port}", f"server {host} is down",
                 f"HTTPSConnectionPool(host={host!r}, port={port}): Max retries"):  # fmt: skip
        assert MARK not in clean(said), said


@given(INTERNAL)
def test_full_names_of_hosts_are_taken_out(host: str) -> None:
    assert MARK not in clean(f"Name or service not known: {host}")


@given(st.ip_addresses(), st.sampled_from(["", ":80"]))
def test_numbers_of_hosts_are_taken_out(number: object, port: str) -> None:
    shown = f"[{number}]{port}" if ":" in str(number) and port else f"{number}{port}"
    if str(number) != "::":
        assert clean(f"cannot reach {shown}") == "cannot reach (address)"


@pytest.mark.parametrize(
    "said",
    [
        "weights hold NaN or infinity: 3 values in gpt_neox.layers.3.mlp.dense.weight and 1 other tensors",
        "EleutherAI/pythia-160m step1000@1234567: could not be fetched: model.safetensors did not come",
        "the weights lack transformer.h.0.attn.bias (2 in all)",
        "at 3/4 of it, 1.5e-3 of 2.0.1, and/or n/a",
        "step5: config.json cannot be read: Expecting value: line 1 column 1 (char 0)",
        "holds the weights of step 512, where they are measured: one observation",
        "there is no revision step11 at https://huggingface.co/EleutherAI/pythia-160m",
        "the tokenizer gives token 50304, and the model has embeddings for 50,304 tokens: is it this model's?",
        "c10::Error: std::bad_alloc at 12:30:01 (model.py:120)",
        "step 5 / 6 of blocks.0.hook_resid_post, answer/centred",
    ],
)  # fmt: skip
def test_sentences_that_name_nothing_stay(said: str) -> None:
    assert clean(said) == said


def test_what_is_signed_or_secret_is_taken_out_of_public_addresses() -> None:
    said = clean(
        "at https://cdn-lfs.hf.co/a/b?X-Amz-Signature=qzx&Expires=3. With hf_qzxqzxqzx, Bearer qzx or me@qzx.org"
    )
    assert said == "at https://cdn-lfs.hf.co/a/b. With (secret), (secret) or (address)"
    assert clean("https://qzx@huggingface.co/a") == "https://huggingface.co/a"
    assert clean("https://huggingface.co:8443/qzx") == "(address)"


def test_names_of_homes_are_taken_out() -> None:
    for said in ("/home/qzx is full", "'/home/qzx'", "C:\\Users\\qzx", "/Users/qzx: no", "~qzx/a: no"):
        assert MARK not in clean(said), said
    assert clean_values({"target": "/home/qzx", "out": ["/home/qzx/nano"]}) == {"target": "~", "out": ["nano"]}


def test_a_manifest_tells_what_is_of_its_machine(tmp_path: Path) -> None:
    command = ["pythiageo", "analyze", "/data/a: b/runs", "--out=/mnt/c d/e"]
    manifest = {"config": {"target": "/data/a: b/runs"}, "provenance": {"command": command}}
    assert {"/data/a: b/runs", "/mnt/c d/e", str(tmp_path)} <= find_places(without_mistakes(manifest), tmp_path)


LONG = "qzxwvqzx"
"""Longer: the packed data of a page holds every short word."""
REASONS = [
    "/data/qzxwvqzx a: b/my runs/step5/model.safetensors is damaged",
    "could not be fetched: domain: http://qzxwvqzx.corp:8080/v1/x?Signature=qzxwvqzx",
    "CAS at gpu-qzxwvqzx-07:443 (10.1.2.3)",
]


def test_a_published_run_names_nothing(tmp_path: Path) -> None:
    config = {"target": "/data/qzxwvqzx a: b/my runs", "data": {"corpus": ["/home/qzxwvqzx doe/mine.txt"]}}
    run = planted.write_run(tmp_path / "qzxwvqzx run", planted.rows(steps=[0, 100, 200]), config=config)
    table = pl.read_parquet(run / "observations.parquet").with_row_index()
    for number, reason in enumerate(REASONS):
        here = pl.col("index") == number
        table = table.with_columns(
            pl.when(here).then(pl.lit(reason)).otherwise("reason").alias("reason"),
            pl.when(here).then(pl.lit("unreadable")).otherwise("status").alias("status"),
            pl.when(here).then(None).otherwise("value").alias("value"),
        )
    write_whole(run, table.drop("index"))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["checkpoints"] = [{"step": 0, "status": "unreadable", "reason": reason} for reason in REASONS]
    (run / "manifest.json").write_text(json.dumps(manifest))
    bundle = write_bundle(run, tmp_path / "out", "me/tiny")
    for name in bundle.files:
        assert LONG.encode() not in (bundle.folder / name).read_bytes(), name
    for column in pl.read_parquet(bundle.folder / "observations.parquet").select(pl.col(pl.String)):
        assert LONG not in "\n".join(column.drop_nulls().unique()), column.name
    assert "model.safetensors is damaged" in (bundle.folder / "manifest.json").read_text()


def test_a_name_of_this_host_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu-17")
    assert clean("gpu-17 ran out of memory") == "(address) ran out of memory"
    rows = planted.rows(steps=[0, 100])
    run = planted.write_run(tmp_path / "run", [row._replace(run="on-gpu-17") for row in rows])
    with pytest.raises(UserError, match="would name gpu-17, a host of yours; nothing was published"):
        write_bundle(run, tmp_path / "out", "me/tiny")
    excerpt(run, tmp_path / "part")
