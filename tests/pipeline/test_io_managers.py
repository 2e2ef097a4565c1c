"""pipeline/io_managers.py: texts are kept byte for byte, or not at all."""

import os
from pathlib import Path

import dagster as dg
import pytest
from upath import UPath

from pipeline.io_managers import TextIOManager, TextIOManagerFactory


def keep(manager: TextIOManager, text: object, run_id: str = "run") -> dg.OutputContext:
    """Write `text` as the output `sent` of a run; return the context it was written with."""
    context = dg.build_output_context(name="sent", run_id=run_id, step_key="get_string")
    manager.handle_output(context, text)
    return context


@pytest.mark.parametrize(
    "text", ["", "plain", "line\nline\r\nend\n", "naïve 日本語 👍", "\ufeffmark", "nul\0", " " * 3, "x" * 100_000]
)
def test_a_text_comes_back_as_it_was(text: str, data: Path) -> None:
    manager = TextIOManager(UPath(data))
    output = keep(manager, text)
    assert (data / "run" / "sent.txt").read_bytes() == text.encode()
    assert manager.load_input(dg.build_input_context(upstream_output=output)) == text


def test_an_asset_materialization_tells_path_length_and_preview(data: Path) -> None:
    (event,) = keep(TextIOManager(UPath(data)), "ä" * 200).get_logged_events()
    assert isinstance(event, dg.AssetMaterialization)
    assert event.asset_key == dg.AssetKey("sent")
    assert {label: entry.value for label, entry in event.metadata.items()} == {
        "path": str(data / "run" / "sent.txt"),
        "length": 200,
        "preview": "ä" * 100,
    }


@pytest.mark.parametrize("value", [b"bytes", 1, None, ["list"]])
def test_another_type_is_refused_with_its_name(value: object, data: Path) -> None:
    with pytest.raises(TypeError, match=f"sent is {type(value).__name__}"):
        keep(TextIOManager(UPath(data)), value)
    assert not list(data.rglob("*.txt"))


def test_a_text_that_has_no_utf_8_form_leaves_no_file(data: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        keep(TextIOManager(UPath(data)), "half a pair: \ud800")
    assert not list(data.rglob("*.*"))


def test_a_directory_that_cannot_be_made_is_named(data: Path) -> None:
    data.write_text("a file where the directory should be")
    with pytest.raises(OSError, match=str(data)):
        keep(TextIOManager(UPath(data)), "text")


def test_a_write_that_fails_keeps_the_old_text_and_leaves_no_half_file(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = TextIOManager(UPath(data))
    keep(manager, "old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "rename", fail)
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        keep(manager, "new")
    assert [path.name for path in (data / "run").iterdir()] == ["sent.txt"]
    assert (data / "run" / "sent.txt").read_text() == "old"


def test_a_missing_text_is_named_when_read(data: Path) -> None:
    context = dg.build_input_context(upstream_output=dg.build_output_context(name="sent", run_id="gone"))
    with pytest.raises(FileNotFoundError, match=r"gone/sent\.txt"):
        TextIOManager(UPath(data)).load_input(context)


def test_any_file_system_that_fsspec_knows_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_PATH", "memory://bucket/prefix")
    manager = TextIOManagerFactory().create_io_manager(dg.build_init_resource_context())
    output = keep(manager, "text")
    assert UPath("memory://bucket/prefix/run/sent.txt").read_bytes() == b"text"
    assert manager.load_input(dg.build_input_context(upstream_output=output)) == "text"


def test_the_default_is_a_directory_called_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATA_PATH")
    monkeypatch.chdir(tmp_path)
    keep(TextIOManagerFactory().create_io_manager(dg.build_init_resource_context()), "text")
    assert (tmp_path / "data" / "run" / "sent.txt").read_bytes() == b"text"
