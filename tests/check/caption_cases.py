"""Cases of the rules about captions; those of the plain run are `noise 0` and `noise 1`."""

from __future__ import annotations

from tests.check.rule_cases import Case

SHUFFLE = "captions.shuffle=true"
SPACE = "captions.separator=' '"

CAPTION_CASES = (
    Case(
        "SF311",
        "shuffled_sentences",
        "warning",
        (SHUFFLE,),
        ((SHUFFLE, SPACE), ()),
        {"count": 2, "captions": 2, "separator": ","},
        "captions.shuffle",
    ),
    Case(
        "SF312",
        "all_tags_kept",
        "warning",
        (SHUFFLE, SPACE, "captions.keep_tags=2"),
        ((SHUFFLE, SPACE, "captions.keep_tags=1"), ("captions.keep_tags=2",)),
        {"keep": 2},
        "captions.keep_tags",
    ),
    Case(
        "SF314",
        "previews_without_trigger",
        "warning",
        ("captions.trigger=mycat", 'preview.prompts=["a cat"]'),
        (("captions.trigger=mycat", 'preview.prompts=["a MyCat"]'), ("captions.trigger=mycat",)),
        {"trigger": "mycat"},
        "preview.prompts",
    ),
)
