"""Bounds on what a cell may return."""

from __future__ import annotations

import pytest

from s1vl_sandbox.outputs import HeadTail, OutputCollector, OutputLimits, cut, cut_mime, cut_traceback

SMALL = OutputLimits(text_chars=100, outputs=5, rich_chars=1000)


def stream(text: str, name: str = "stdout") -> tuple[str, dict[str, str]]:
    return "stream", {"name": name, "text": text}


class TestHeadTail:
    @pytest.mark.parametrize("text", ["", "short", "x" * 75, "x" * 100])
    def test_what_fits_comes_out_whole(self, text: str) -> None:
        bound = HeadTail(100)
        assert bound.write(text) + bound.finish() == text
        assert bound.missing == 0

    def test_the_middle_is_what_goes(self) -> None:
        bound = HeadTail(100)
        shown = bound.write("a" * 75 + "b" * 1000 + "c" * 25)
        assert shown == "a" * 75
        assert bound.missing == 1000
        assert bound.finish() == "\n[output truncated: 1000 characters left out]\n" + "c" * 25

    @pytest.mark.parametrize("piece", [1, 3, 24, 25, 26, 400])
    def test_the_size_of_the_pieces_does_not_matter(self, piece: int) -> None:
        text = "".join(chr(97 + n % 26) for n in range(1234))
        bound = HeadTail(100)
        shown = "".join(bound.write(text[at : at + piece]) for at in range(0, len(text), piece))
        rest = bound.finish()
        assert shown == text[:75]
        assert rest.endswith("]\n" + text[-25:])
        assert f"{1234 - 100} characters" in rest

    def test_it_remembers_no_more_than_it_may_show(self) -> None:
        bound = HeadTail(1000)
        for _ in range(10_000):
            bound.write("x" * 100)
        assert sum(map(len, bound._tail)) < 2 * 250


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x" * 40, "x" * 40),
        ("a" * 30 + "b" * 7 + "c" * 10, "a" * 30 + "\n[output truncated: 7 characters left out]\n" + "c" * 10),
    ],
)
def test_cut(text: str, expected: str) -> None:
    assert cut(text, 40) == expected


class TestTraceback:
    def test_a_short_one_is_kept(self) -> None:
        assert cut_traceback(["a", "b"], 1000) == ["a", "b"]

    def test_a_long_one_keeps_its_ends(self) -> None:
        lines = cut_traceback([f"frame {n} " + "x" * 50 for n in range(100)] + ["ValueError: no"], 1000)
        assert lines[0].startswith("frame 0 ")
        assert lines[-1] == "ValueError: no"
        assert "lines left out" in lines[-2]
        assert sum(map(len, lines)) < 1100

    def test_a_giant_line_is_cut(self) -> None:
        assert sum(map(len, cut_traceback(["x" * 10**6], 1000))) < 1100


class TestMime:
    def test_what_fits_is_untouched(self) -> None:
        data = {"text/plain": "x", "image/png": "aGk="}
        assert cut_mime(data, 10, 10) == (data, False)

    def test_a_large_image_becomes_a_notice(self) -> None:
        data, was_cut = cut_mime({"text/plain": "<Figure>", "image/png": "x" * 11}, 100, 10)
        assert was_cut
        assert data == {"text/plain": "<Figure>\n[image/png of 11 characters left out: the limit is 10]"}

    def test_a_large_text_is_cut(self) -> None:
        data, was_cut = cut_mime({"text/plain": "x" * 500}, 100, 10)
        assert was_cut
        assert "400 characters left out" in data["text/plain"]

    def test_large_html_counts_as_text(self) -> None:
        data, was_cut = cut_mime({"text/html": "x" * 101}, 100, 1000)
        assert was_cut
        assert "text/html" not in data

    def test_json_is_measured_too(self) -> None:
        data, was_cut = cut_mime({"application/json": {"a": ["x" * 100]}}, 100, 50)
        assert was_cut
        assert "application/json" not in data


class TestCollector:
    def test_writes_to_one_stream_become_one_output(self) -> None:
        collector = OutputCollector(SMALL)
        for text in ("a", "b"):
            collector.add(*stream(text))
        collector.add(*stream("c", "stderr"))
        collector.add(*stream("d"))
        assert [(o["name"], o["text"]) for o in collector.outputs] == [
            ("stdout", "ab"),
            ("stderr", "c"),
            ("stdout", "d"),
        ]

    def test_text_is_bounded_and_says_so_once(self) -> None:
        collector = OutputCollector(SMALL)
        for _ in range(50):
            collector.add(*stream("x" * 10))
        assert collector.truncated
        assert collector.outputs[0]["text"] == "x" * 100
        assert [o["text"] for o in collector.outputs[1:]] == ["[output truncated: over 100 characters of text]\n"]

    def test_the_number_of_outputs_is_bounded(self) -> None:
        collector = OutputCollector(SMALL)
        for n in range(50):
            collector.add("display_data", {"data": {"text/plain": str(n)}, "metadata": {}})
        assert collector.truncated
        assert len(collector.outputs) == 5 + 1

    def test_images_share_one_budget(self) -> None:
        collector = OutputCollector(SMALL)
        for _ in range(3):
            collector.add("display_data", {"data": {"image/png": "x" * 400}, "metadata": {}})
        assert ["image/png" in o["data"] for o in collector.outputs if "data" in o] == [True, True, False]
        assert collector.truncated

    def test_an_error_is_kept_when_everything_else_has_run_out(self) -> None:
        collector = OutputCollector(SMALL)
        for n in range(50):
            collector.add(*stream("x" * 10, f"stream{n}"))
        collector.add("error", {"ename": "ValueError", "evalue": "no", "traceback": ["ValueError: no"]})
        assert collector.error == {
            "output_type": "error",
            "ename": "ValueError",
            "evalue": "no",
            "traceback": ["ValueError: no"],
        }
        assert collector.outputs[-1] is collector.error

    def test_execute_result_carries_its_count(self) -> None:
        collector = OutputCollector(SMALL)
        collector.add("execute_result", {"data": {"text/plain": "2"}, "metadata": {}, "execution_count": 7})
        assert collector.outputs == [
            {"output_type": "execute_result", "data": {"text/plain": "2"}, "metadata": {}, "execution_count": 7}
        ]

    def test_clear_output_clears_but_gives_no_budget_back(self) -> None:
        collector = OutputCollector(SMALL)
        collector.add(*stream("x" * 90))
        collector.add("clear_output", {"wait": True})
        assert collector.outputs
        collector.add(*stream("y" * 90))
        assert collector.outputs[0]["text"] == "y" * 10

    @pytest.mark.parametrize("msg_type", ["status", "execute_input", "comm_open", "made up"])
    def test_other_messages_show_nothing(self, msg_type: str) -> None:
        collector = OutputCollector(SMALL)
        collector.add(msg_type, {"text": "x"})
        assert collector.outputs == []

    @pytest.mark.parametrize(
        ("msg_type", "content"),
        [
            ("stream", {}),
            ("display_data", {"data": None}),
            ("error", {"traceback": None}),
            ("execute_result", {"data": {"image/png": None}}),
        ],
    )
    def test_malformed_content_of_a_hostile_kernel_is_survived(self, msg_type: str, content: dict[str, object]) -> None:
        OutputCollector(SMALL).add(msg_type, content)
