"""Data sets as VLMEvalKit's are written: by pandas, whose quoting is that of the csv module."""

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path
from typing import Any

from PIL import Image

from s1vl_cli.evaluation.questions import Question


def picture(colour: str = "red", size: tuple[int, int] = (32, 32), kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, kind)
    return out.getvalue()


def encoded(content: bytes | None = None) -> str:
    return base64.b64encode(picture() if content is None else content).decode()


def row(index: Any, **values: Any) -> dict[str, Any]:
    usual = {"question": "What?", "A": "red", "B": "blue", "C": "green", "D": "white", "answer": "A"}
    return {"index": index, "image": encoded(), **usual, "category": "colour", **values}


def write(path: Path, rows: list[dict[str, Any]], *, line_end: str = "\n", encoding: str = "utf-8") -> Path:
    columns = list(dict.fromkeys(name for values in rows for name in values))
    with path.open("w", newline="", encoding=encoding) as file:
        out = csv.writer(file, delimiter="\t", lineterminator=line_end)
        out.writerow(columns)
        out.writerows([values.get(name, "") for name in columns] for values in rows)
    return path


def question(index: str, **values: Any) -> Question:
    options = {"A": "red", "B": "blue", "C": "green", "D": "white"}
    return Question(**{"index": index, "question": "What?", "hint": "", "options": options, "answer": "A", **values})
