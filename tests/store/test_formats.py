"""Formats by name: what a file is in, what its name has to be, and what is said where it is another one."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from kanta import Kanta

from kantad.store.disk import RealDisk
from kantad.store.formats import NotOurs, format_of, own
from kantad.store.imported import CodeError, attribute, resolver
from kantad.store.log import open_log
from tests.own_formats import CBOR, KANTA_STYLE, OWN, PREFIXED, REVERSED, KantaStyle
from tests.store.logs import ALL, FORMATS, T0, Maker, every_kind


@pytest.mark.parametrize("format", ALL)
@pytest.mark.parametrize("flag", [None, *ALL])
def test_a_file_is_read_as_what_it_is_or_refused(format: str, flag: str | None) -> None:
    data = bytes(every_kind(format).data)
    if flag == format or (flag is None and format in FORMATS):
        framing, codec = format_of(data, flag)
        assert (codec.name, framing.header) == (format, Maker(format).framing.header)
        return
    if {flag, format} <= {PREFIXED, REVERSED}:
        return  # that these are not of that class, the records themselves tell
    with pytest.raises(NotOurs) as caught:
        format_of(data, flag)
    assert ("--format module:Class" if flag is None else flag) in str(caught.value)


@pytest.mark.parametrize("format", OWN)
def test_a_file_that_another_class_wrote_is_damaged_and_stays_as_it_is(format: str, tmp_path: Path) -> None:
    other = {CBOR: None, PREFIXED: REVERSED, REVERSED: PREFIXED}[format]
    if other is None:
        return
    path = tmp_path / "data.kantadb"
    path.write_bytes(bytes(every_kind(format).data))
    with pytest.raises(Exception, match="begins with"):
        open_log(str(path), other, RealDisk(), T0)
    assert path.read_bytes() == bytes(every_kind(format).data)


@pytest.mark.parametrize("format", [CBOR, PREFIXED, REVERSED])
def test_what_is_no_kantadb_is_none_in_a_format_of_ones_own_either(format: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"hello\n", b"hello", b"\x89PNG\r\n\x1a\n" * 9, bytes(9) + b"\1"):
        path.write_bytes(content)
        with pytest.raises(Exception, match=r"no file of|is it a kantadb|begins with"):
            open_log(str(path), format, RealDisk(), T0)
        assert path.read_bytes() == content


def test_a_flipped_bit_in_the_first_record_makes_it_no_file_to_be_repaired_as_another() -> None:
    for format in OWN:
        data = bytearray(every_kind(format).data)
        end = every_kind(format).points[0].end
        for offset in range(end - 21, end - 1):
            data[offset] ^= 1
            if not every_kind(format).binary:
                with pytest.raises(NotOurs):
                    format_of(data, None)
            framing, codec = format_of(data, format)
            assert (framing.header, codec.name) == (Maker(format).framing.header, format)
            data[offset] ^= 1


class Data(msgspec.Struct):
    """kanta's root."""

    items: dict[str, Any] = {}


async def test_a_class_written_for_kanta_is_one_for_kantad_and_its_files_go_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "data.kantadb"
    async with Kanta(str(path), Data(), serializer=KantaStyle()) as kanta:
        with kanta.transaction(action="first", user="ann") as data:
            data.items["a"] = {"b": 1}
    log, found = open_log(str(path), KANTA_STYLE, RealDisk(), T0)
    assert found.state == {"items": {"a": {"b": 1}}}
    payload, _ = log.codec.change(found.micros, "second", {"items": {"c": [1, 2]}}, found.chain)
    log.append(log.framed([(payload, False)]))
    log.close()
    kanta = Kanta(str(path), Data(), serializer=KantaStyle())
    await kanta.open(readonly=True)
    assert kanta.data.items == {"a": {"b": 1}, "c": [1, 2]}
    await kanta.close()


class TestNames:
    """What is said of a name that leads nowhere."""

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("nothing", "is not module:Class"),
            (":x", "is not module:Class"),
            ("no_such_module:X", "there is no module no_such_module"),
            ("tests.own_formats:Missing", "has no Missing"),
            ("tests.own_formats:CBOR", "is no class"),
            ("tests.own_formats:TypeVar", "TypeError"),
        ],
    )
    def test_a_wrong_name_is_refused_with_the_reason(self, name: str, why: str) -> None:
        with pytest.raises(CodeError, match=why):
            own(name)

    def test_a_module_that_fails_is_told_with_its_place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(tmp_path)
        (tmp_path / "fails_here.py").write_text("1 / 0\n")
        (tmp_path / "ends_here.py").write_text("raise SystemExit\n")
        (tmp_path / "needs_more.py").write_text("import no_such_module\n")
        with pytest.raises(CodeError, match=r"ZeroDivisionError.*fails_here.py, line 1"):
            attribute("fails_here:X")
        with pytest.raises(CodeError, match="ends the process"):
            attribute("ends_here:X")
        with pytest.raises(CodeError, match="could not be imported"):
            attribute("needs_more:X")

    def test_a_resolver_is_a_function(self) -> None:
        assert resolver("tests.own_formats:Cbor.encode")
        with pytest.raises(CodeError, match="no function"):
            resolver("tests.own_formats:CBOR")
