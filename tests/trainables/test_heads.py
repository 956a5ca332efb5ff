from __future__ import annotations

import pickle
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from trainables.classifier import ClassifierHead
from trainables.heads import LANGUAGE, LanguageHead, forward_only
from trainables.testing import make_tiny_encoder
from trainables.variants.core.matrices import find_matrices, head_modules


def test_a_language_models_head_is_not_trained(loaded, tmp_path: Path) -> None:
    model, _ = loaded
    assert LANGUAGE.free(model, None) == [] and head_modules(model) == []  # type: ignore[arg-type]
    assert pickle.loads(pickle.dumps(LANGUAGE)) == LanguageHead()


def test_an_empty_model_has_the_shape_of_the_loaded_one(tiny_model, tmp_path) -> None:
    encoder = make_tiny_encoder(tmp_path, family="deberta-v2")
    three = ClassifierHead(("a", "b", "c"))
    for head, folder, kind in (
        (LANGUAGE, tiny_model, AutoModelForCausalLM),
        (three, encoder, AutoModelForSequenceClassification),
    ):
        empty = head.empty(folder)
        assert all(p.device.type == "meta" for p in empty.parameters())
        options = {} if head is LANGUAGE else {"num_labels": 3}
        whole = kind.from_pretrained(folder, **options)
        assert {n: p.shape for n, p in empty.named_parameters()} == {n: p.shape for n, p in whole.named_parameters()}


def test_adapters_leave_the_head_alone(tmp_path) -> None:
    model = ClassifierHead(("a", "b")).empty(make_tiny_encoder(tmp_path, family="bert"))
    assert head_modules(model) == ["classifier", "bert.pooler"]
    assert not any("pooler" in matrix.name or "classifier" in matrix.name for matrix in find_matrices(model))


def test_only_models_with_a_cache_are_told_to_leave_it(loaded, tmp_path) -> None:
    assert forward_only(loaded[0]) == {"use_cache": False}
    assert forward_only(ClassifierHead(("a", "b")).empty(make_tiny_encoder(tmp_path))) == {}
