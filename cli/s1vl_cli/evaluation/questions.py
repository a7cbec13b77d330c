"""A multiple-choice question and the words in which it is asked. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_REQUEST = "Please select the correct answer from the options above. \n"


@dataclass(frozen=True, slots=True)
class Question:
    """One row of a data set, without its pictures.

    Attributes:
        index: The row's name.
        question: What is asked.
        hint: Shown before the question, where there is one.
        options: The choices by their letters, in the order of the alphabet.
        answer: The letter of the right one.
        category: What it is about; "" where the data set does not say.
        l2_category: A coarser category; "" where there is none.
        split: Part of the data set; "" where it has none.
        cycle: Which rotation of the options this is (HRBench's `cycle_category`); "" where they are not rotated.
        group: The index of the question of which this is a rotation (`g_index`); "" where each stands for itself.
    """

    index: str
    question: str
    hint: str
    options: dict[str, str]
    answer: str
    category: str = ""
    l2_category: str = ""
    split: str = ""
    cycle: str = ""
    group: str = ""


def prompt_of(question: Question) -> str:
    """The text that follows the pictures: word for word, the last blank included, VLMEvalKit's for multiple choice.

    From `ImageMCQDataset.build_prompt`, which V* and HRBench use as they are.
    """
    hint = f"Hint: {question.hint}\n" if question.hint else ""
    options = "".join(f"{letter}. {text}\n" for letter, text in question.options.items())
    return f"{hint}Question: {question.question}\nOptions:\n{options}{_REQUEST}"
