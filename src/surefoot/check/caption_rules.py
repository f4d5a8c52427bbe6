"""Rules about what the section `captions` makes of the captions that were found."""

from __future__ import annotations

from collections.abc import Iterator

from surefoot.data.captions import has_trigger, tags_of
from surefoot.finding import Finding, Value
from surefoot.plan import Plan
from surefoot.survey import Survey


def _captions(survey: Survey) -> dict[str, tuple[str, ...]]:
    """Those that are not empty, by the path of their picture."""
    return {
        str(example.path): tuple(text for text in example.captions if text)
        for scan in survey.data
        for example in scan.examples
        if any(example.captions)
    }


def shuffled_sentences(plan: Plan, survey: Survey) -> Iterator[Finding]:
    """SF311. Without a separator there is one tag, and no order to change."""
    captions = plan.config.captions
    if not (captions.shuffle or captions.tag_dropout):
        return
    found = _captions(survey)
    whole = [
        path
        for path, texts in found.items()
        if any(sum(map(len, tags_of(text, captions))) < 2 for text in texts)
    ]
    if 2 * len(whole) > len(found):
        values: dict[str, Value] = {
            "count": len(whole),
            "captions": len(found),
            "separator": captions.separator,
            "example": whole[0],
        }
        key = "captions.shuffle" if captions.shuffle else "captions.tag_dropout"
        yield Finding("SF311", "warning", key, values)


def all_tags_kept(plan: Plan, survey: Survey) -> Iterator[Finding]:
    """SF312. Then nothing is left that could be moved or left out."""
    captions = plan.config.captions
    if not (captions.keep_tags and (captions.shuffle or captions.tag_dropout)):
        return
    texts = [text for texts in _captions(survey).values() for text in texts]
    if texts and not any(tags_of(text, captions)[1] for text in texts):
        yield Finding("SF312", "warning", "captions.keep_tags", {"keep": captions.keep_tags})


def unpaired_braces(plan: Plan, survey: Survey) -> Iterator[Finding]:
    """SF313. What is unpaired is no wildcard and stands in the caption as it is."""
    if not plan.config.captions.wildcards:
        return
    found = [
        path
        for path, texts in _captions(survey).items()
        if any(text.count("{") != text.count("}") for text in texts)
    ]
    if found:
        values: dict[str, Value] = {"count": len(found), "example": found[0]}
        yield Finding("SF313", "warning", "captions.wildcards", values)


def previews_without_trigger(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF314. Such a preview shows what the base model makes of the prompt."""
    trigger, prompts = plan.config.captions.trigger.strip(), plan.config.preview.prompts
    if trigger and prompts and not any(has_trigger(prompt, trigger) for prompt in prompts):
        yield Finding("SF314", "warning", "preview.prompts", {"trigger": trigger})


CAPTION_RULES = (
    shuffled_sentences,
    all_tags_kept,
    unpaired_braces,
    previews_without_trigger,
)
